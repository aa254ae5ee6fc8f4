//! Fields of configuration that the runtime may override.

use dhow_proto::envoy::config::core::v3 as pb;

use crate::snapshot::RuntimeValues;

/// A default and the key that overrides it; an empty key never does.
#[derive(Clone, Debug, PartialEq)]
struct Keyed<T> {
    default: T,
    key: Box<str>,
}

impl<T: Copy> Keyed<T> {
    fn read(&self, read: impl FnOnce(&str) -> Option<T>) -> T {
        if self.key.is_empty() { self.default } else { read(&self.key).unwrap_or(self.default) }
    }
}

macro_rules! setting {
    ($(#[$meta:meta])* $name:ident: $value:ty, $read:ident, $convert:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(Keyed<$value>);

        impl $name {
            /// A default with the key that overrides it; an empty key never does.
            pub fn new(key: &str, default: $value) -> Self {
                Self(Keyed { default, key: key.into() })
            }

            /// The value as it is now.
            pub fn value(&self, runtime: &dyn RuntimeValues) -> $value {
                self.0.read(|key| runtime.$read(key).map($convert))
            }
        }
    };
}

setting! {
    /// `RuntimeFeatureFlag`: a boolean.
    RuntimeFlag: bool, boolean, |value| value
}
setting! {
    /// `RuntimeDouble`: a number.
    RuntimeNumber: f64, double, |value| value
}
setting! {
    /// `RuntimePercent`: a number of per cent.
    RuntimePercent: f64, double, |value| value
}
setting! {
    /// `RuntimeUInt32`: an integer; what does not fit is as large as fits.
    RuntimeUint32: u32, number, |value| u32::try_from(value).unwrap_or(u32::MAX)
}

impl From<&pb::RuntimeFeatureFlag> for RuntimeFlag {
    /// Without default value it is on, as validation demands one.
    fn from(message: &pb::RuntimeFeatureFlag) -> Self {
        let pb::RuntimeFeatureFlag { default_value, runtime_key } = message;
        Self::new(runtime_key, default_value.as_ref().is_none_or(|value| value.value))
    }
}

impl From<&pb::RuntimeDouble> for RuntimeNumber {
    fn from(message: &pb::RuntimeDouble) -> Self {
        let pb::RuntimeDouble { default_value, runtime_key } = message;
        Self::new(runtime_key, *default_value)
    }
}

impl From<&pb::RuntimePercent> for RuntimePercent {
    fn from(message: &pb::RuntimePercent) -> Self {
        let pb::RuntimePercent { default_value, runtime_key } = message;
        Self::new(runtime_key, default_value.as_ref().map_or(0.0, |percent| percent.value))
    }
}

impl From<&pb::RuntimeUInt32> for RuntimeUint32 {
    fn from(message: &pb::RuntimeUInt32) -> Self {
        let pb::RuntimeUInt32 { default_value, runtime_key } = message;
        Self::new(runtime_key, *default_value)
    }
}
