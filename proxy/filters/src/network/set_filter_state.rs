//! `envoy.filters.network.set_filter_state`: puts formatted values into the connection's filter state.

use std::rc::Rc;
use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue as Value;
use dhow_proto::envoy::extensions::filters::network::set_filter_state::v3::Config;
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::{ConnectionInfo, ReadFilter, ReadFilterFactory, ReadVerdict, StreamFormat, StreamInfo};
use dhow_stats::Store;

use super::NetworkFilterDescriptor;
use crate::set_filter_state::Object;

pub(super) const DESCRIPTOR: NetworkFilterDescriptor = NetworkFilterDescriptor {
    type_name: "envoy.extensions.filters.network.set_filter_state.v3.Config",
    configure,
};

/// What is set, and when.
#[derive(Debug)]
struct Settings {
    on_new_connection: Box<[Object]>,
    on_handshake: Box<[Object]>,
    on_data: Box<[Object]>,
}

#[derive(Debug)]
struct Factory(Arc<Settings>);

fn configure(
    config: &Any,
    _store: &Store,
    path: &FieldPath,
    _warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<dyn ReadFilterFactory>, ConfigError> {
    let Config { on_new_connection, on_downstream_tls_handshake, on_downstream_data } =
        dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    let read = |messages: Vec<Value>, field: &str| -> Result<Box<[Object]>, ConfigError> {
        let path = path.field(field);
        messages.into_iter().enumerate().map(|(at, message)| Object::read(message, &path.index(at))).collect()
    };
    Ok(Arc::new(Factory(Arc::new(Settings {
        on_new_connection: read(on_new_connection, "on_new_connection")?,
        on_handshake: read(on_downstream_tls_handshake, "on_downstream_tls_handshake")?,
        on_data: read(on_downstream_data, "on_downstream_data")?,
    }))))
}

impl ReadFilterFactory for Factory {
    fn create(&self) -> Box<dyn ReadFilter> {
        Box::new(Filter { settings: self.0.clone(), data_seen: false })
    }
}

struct Filter {
    settings: Arc<Settings>,
    data_seen: bool,
}

/// Sets the objects, each of which may show those before.
fn set(objects: &[Object], connection: &Rc<ConnectionInfo>) {
    for object in objects {
        let info = StreamInfo::of_connection(connection.clone(), connection.id);
        if let Some(entry) = object.make(&StreamFormat::new(&info)) {
            connection.record_mut().borrow_mut().filter_state.insert(entry);
        }
    }
}

impl ReadFilter for Filter {
    fn on_new_connection(&mut self, connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        set(&self.settings.on_new_connection, connection);
        ReadVerdict::Continue
    }

    fn on_handshake(&mut self, connection: &Rc<ConnectionInfo>) {
        set(&self.settings.on_handshake, connection);
    }

    fn watches_data(&self) -> bool {
        !self.data_seen && !self.settings.on_data.is_empty()
    }

    fn on_data(&mut self, connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        self.data_seen = true;
        set(&self.settings.on_data, connection);
        ReadVerdict::Continue
    }
}
