//! `typed_per_filter_config`: what routes say to filters, by the filter's configured name.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::Message;

use crate::compile::CompileOptions;
use crate::cors_field::{self, CORS_FIELD};
use crate::pb::protobuf;
use crate::pb::route::{CorsPolicy, FilterConfig};

/// A filter's compiled configuration; only the filter knows its type.
pub type FilterConfigObject = Arc<dyn Any + Send + Sync>;

/// What one level says to one filter.
#[derive(Clone)]
pub struct FilterOverride {
    /// The message; `None` when the filter is only switched on or off.
    pub message: Option<Arc<protobuf::Any>>,
    /// What the filter made of the message.
    pub config: Option<FilterConfigObject>,
    /// `FilterConfig.disabled`: the filter is skipped.
    pub disabled: bool,
}

impl fmt::Debug for FilterOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.message.as_ref().map(|any| &any.type_url);
        f.debug_struct("FilterOverride").field("type", &url).field("disabled", &self.disabled).finish()
    }
}

/// The overrides that apply to a route, by filter name: of every level that has one, the most specific first.
#[derive(Clone, Debug, Default)]
pub struct FilterConfigs {
    by_name: Option<Arc<[Named]>>,
}

/// A filter's name, and its overrides with the most specific first.
type Named = (Box<str>, Box<[FilterOverride]>);

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

impl FilterConfigs {
    /// Compiles one level's map over those of less specific levels.
    pub(crate) fn compile(
        map: &HashMap<String, protobuf::Any>,
        below: &Self,
        path: &FieldPath,
        options: &CompileOptions<'_>,
    ) -> Result<Self, ConfigError> {
        if map.is_empty() {
            return Ok(below.clone());
        }
        let mut merged: BTreeMap<Box<str>, Vec<FilterOverride>> = BTreeMap::new();
        let mut names: Vec<_> = map.iter().collect();
        names.sort_by_key(|(name, _)| name.as_str());
        for (name, any) in names {
            if let Some(one) = compile_one(name, any, &path.key(name), options)? {
                merged.insert(name.as_str().into(), vec![one]);
            }
        }
        for (name, overrides) in below.by_name.iter().flat_map(|levels| levels.iter()) {
            merged.entry(name.clone()).or_default().extend(overrides.iter().cloned());
        }
        let by_name = merged.into_iter().map(|(name, overrides)| (name, overrides.into())).collect();
        Ok(Self { by_name: Some(by_name) })
    }

    /// Adds what one level's deprecated field `cors` says to what less specific levels' say.
    pub(crate) fn with_cors(
        self,
        cors: Option<&CorsPolicy>,
        path: &FieldPath,
        options: &CompileOptions<'_>,
    ) -> Result<Self, ConfigError> {
        let Some(cors) = cors else { return Ok(self) };
        let own = cors_field::compile(cors, path, options)?;
        let below = self.levels(CORS_FIELD);
        let levels: Box<[_]> = std::iter::once(own).chain(below.iter().cloned()).collect();
        let others = self.by_name.iter().flat_map(|named| named.iter().cloned());
        let mut by_name: Vec<Named> = others.filter(|(name, _)| **name != *CORS_FIELD).collect();
        by_name.push((CORS_FIELD.into(), levels));
        by_name.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Self { by_name: Some(by_name.into()) })
    }

    /// The overrides of a filter, the most specific level first; empty when there is none.
    pub fn levels(&self, filter: &str) -> &[FilterOverride] {
        let Some(by_name) = &self.by_name else { return &[] };
        match by_name.binary_search_by(|(name, _)| (**name).cmp(filter)) {
            Ok(at) => &by_name[at].1,
            Err(_) => &[],
        }
    }

    /// The most specific override of a filter.
    pub fn get(&self, filter: &str) -> Option<&FilterOverride> {
        self.levels(filter).first()
    }

    /// The most specific compiled configuration of a filter, if it is of type `T`.
    pub fn config<T: Any + Send + Sync>(&self, filter: &str) -> Option<&T> {
        self.levels(filter).iter().find_map(|one| one.config.as_ref())?.downcast_ref()
    }

    /// Whether no level says anything to any filter.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_none()
    }
}

fn compile_one(
    name: &str,
    any: &protobuf::Any,
    path: &FieldPath,
    options: &CompileOptions<'_>,
) -> Result<Option<FilterOverride>, ConfigError> {
    if dhow_proto::any::type_name(&any.type_url) != FILTER_CONFIG {
        let config = (options.compile_filter_config)(name, any, path)?;
        return Ok(Some(FilterOverride { message: Some(Arc::new(any.clone())), config, disabled: false }));
    }
    let decoded = FilterConfig::decode(any.value.as_slice())
        .map_err(|error| ConfigError::new(path.clone(), error.to_string()))?;
    let FilterConfig { config: inner, is_optional, disabled } = decoded;
    let switched = |disabled| Ok(Some(FilterOverride { message: None, config: None, disabled }));
    if disabled {
        return switched(true);
    }
    let Some(inner) = inner else {
        let reason = format!("Empty route/virtual host per filter configuration for {name} filter");
        return Err(ConfigError::new(path.field("config"), reason));
    };
    if inner.type_url.is_empty() {
        return switched(false);
    }
    match (options.compile_filter_config)(name, &inner, &path.field("config")) {
        Ok(config) => Ok(Some(FilterOverride { message: Some(Arc::new(inner)), config, disabled })),
        Err(_) if is_optional => Ok(None),
        Err(error) => Err(error),
    }
}
