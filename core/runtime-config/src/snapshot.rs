//! Layers merged.

use dhow_proto::google::protobuf::Struct;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::fraction::Fraction;
use crate::layer::Layer;
use crate::value::RuntimeValue;

/// Where runtime values come from: a [`Snapshot`], the [`Current`](crate::Current) one, or [`NoRuntime`].
pub trait RuntimeValues {
    /// The fraction that is set for a key; an integer is a percentage.
    fn fraction(&self, key: &str) -> Option<Fraction>;
    /// The integer that is set for a key; a number loses its fraction, a negative one is none.
    fn number(&self, key: &str) -> Option<u64>;
    /// The number that is set for a key.
    fn double(&self, key: &str) -> Option<f64>;
    /// The boolean that is set for a key.
    fn boolean(&self, key: &str) -> Option<bool>;
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
    fn double(&self, _key: &str) -> Option<f64> {
        None
    }
    fn boolean(&self, _key: &str) -> Option<bool> {
        None
    }
}

/// What all layers together say at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    layers: Vec<Layer>,
    /// Per key the index of the layer that decides.
    deciding: HashMap<Box<str>, usize, RandomState>,
}

impl Snapshot {
    /// Merges layers, of which the last one wins.
    pub fn new(layers: Vec<Layer>) -> Self {
        let mut deciding = HashMap::default();
        for (index, layer) in layers.iter().enumerate() {
            for (key, _) in layer.values() {
                deciding.insert(key.into(), index);
            }
        }
        Self { layers, deciding }
    }

    /// A snapshot with one layer, from a message.
    ///
    /// # Errors
    /// Envoy's words for a value that is null or a list.
    pub fn of_struct(message: &Struct) -> Result<Self, String> {
        Ok(Self::new(vec![Layer::from_struct("base", message)?]))
    }

    /// The layers, the lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The keys that have a value, in no order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.deciding.keys().map(|key| &**key)
    }

    /// The value that counts for a key.
    pub fn get(&self, key: &str) -> Option<&RuntimeValue> {
        self.layers[*self.deciding.get(key)?].get(key)
    }

    /// The boolean of a key, or the default.
    pub fn get_bool(&self, key: &str, default: bool) -> bool {
        self.boolean(key).unwrap_or(default)
    }

    /// The integer of a key, or the default.
    pub fn get_u64(&self, key: &str, default: u64) -> u64 {
        self.number(key).unwrap_or(default)
    }

    /// The number of a key, or the default.
    pub fn get_f64(&self, key: &str, default: f64) -> f64 {
        self.double(key).unwrap_or(default)
    }

    /// Whether a random value falls into the fraction of a key, or into the default.
    pub fn feature_enabled(&self, key: &str, default: Fraction, random: u64) -> bool {
        self.fraction(key).unwrap_or(default).contains(random)
    }
}

impl RuntimeValues for Snapshot {
    fn fraction(&self, key: &str) -> Option<Fraction> {
        self.get(key).and_then(RuntimeValue::fraction)
    }
    fn number(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(RuntimeValue::integer)
    }
    fn double(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(RuntimeValue::number)
    }
    fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(RuntimeValue::boolean)
    }
}
