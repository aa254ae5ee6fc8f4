//! Fractions, and fractions with a runtime key.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use dhow_proto::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

use crate::snapshot::RuntimeValues;

/// Numerator over denominator (100, 10,000 or 1,000,000).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// Numerator.
    pub numerator: u32,
    /// Denominator, never zero.
    pub denominator: u32,
}

impl Fraction {
    /// All of it.
    pub const ALL: Self = Self { numerator: 100, denominator: 100 };

    /// Converts the message; no message is nothing.
    pub fn from_message(message: Option<&FractionalPercent>) -> Self {
        let Some(FractionalPercent { numerator, denominator }) = message else {
            return Self { numerator: 0, denominator: 100 };
        };
        let denominator = match DenominatorType::try_from(*denominator) {
            Ok(DenominatorType::TenThousand) => 10_000,
            Ok(DenominatorType::Million) => 1_000_000,
            Ok(DenominatorType::Hundred) | Err(_) => 100,
        };
        Self { numerator: *numerator, denominator }
    }

    /// Whether a random value falls into the fraction.
    pub fn contains(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}

/// `RuntimeFractionalPercent`: a fraction that the runtime may override.
#[derive(Clone, Debug)]
pub struct RuntimeFraction {
    default: Fraction,
    key: Box<str>,
}

impl RuntimeFraction {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the default value is missing.
    pub fn compile(message: &RuntimeFractionalPercent, path: &FieldPath) -> Result<Self, ConfigError> {
        let RuntimeFractionalPercent { default_value, runtime_key } = message;
        if default_value.is_none() {
            return Err(ConfigError::new(path.field("default_value"), "value is required"));
        }
        Ok(Self::new(runtime_key, Fraction::from_message(default_value.as_ref())))
    }

    /// A fraction with the key that overrides it; an empty key never does.
    pub fn new(key: &str, default: Fraction) -> Self {
        Self { default, key: key.into() }
    }

    /// The fraction as it is now.
    pub fn value(&self, runtime: &dyn RuntimeValues) -> Fraction {
        let overridden = if self.key.is_empty() { None } else { runtime.fraction(&self.key) };
        overridden.unwrap_or(self.default)
    }

    /// Whether a random value falls into the fraction as it is now.
    pub fn contains(&self, random: u64, runtime: &dyn RuntimeValues) -> bool {
        self.value(runtime).contains(random)
    }
}
