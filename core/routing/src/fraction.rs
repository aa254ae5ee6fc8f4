//! Fractions with a runtime key.

use dhow_base::ConfigError;
use dhow_base::FieldPath;

use crate::pb::core::RuntimeFractionalPercent;
use crate::pb::kind::{FractionalPercent, fractional_percent::DenominatorType};

/// The runtime's values, by key.
pub trait RuntimeValues {
    /// A fraction that the runtime sets for the key.
    fn fraction(&self, key: &str) -> Option<Fraction>;
    /// A number that the runtime sets for the key.
    fn number(&self, key: &str) -> Option<u64>;
}

/// A runtime in which nothing is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRuntime;

impl RuntimeValues for NoRuntime {
    fn fraction(&self, _key: &str) -> Option<Fraction> {
        None
    }
    fn number(&self, _key: &str) -> Option<u64> {
        None
    }
}

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

/// A fraction that the runtime may override.
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
        Ok(Self { default: Fraction::from_message(default_value.as_ref()), key: runtime_key.as_str().into() })
    }

    /// Whether a random value falls into the fraction as it is now.
    pub fn contains(&self, random: u64, runtime: &dyn RuntimeValues) -> bool {
        let overridden = if self.key.is_empty() { None } else { runtime.fraction(&self.key) };
        overridden.unwrap_or(self.default).contains(random)
    }
}
