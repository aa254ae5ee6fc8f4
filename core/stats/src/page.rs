//! What a reader asks of the stats page.

use regex::Regex;

/// The kinds of stat that `/stats?type=` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatType {
    /// Counters.
    Counters,
    /// Gauges.
    Gauges,
    /// Histograms.
    Histograms,
    /// Text readouts.
    TextReadouts,
}

impl StatType {
    /// The kind of this name, as `/stats?type=` spells it; `All` is not a kind.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "Counters" => Some(Self::Counters),
            "Gauges" => Some(Self::Gauges),
            "Histograms" => Some(Self::Histograms),
            "TextReadouts" => Some(Self::TextReadouts),
            _ => None,
        }
    }
}

/// Which stats to read; the default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only stats that were written at least once.
    pub used_only: bool,
    /// Only full names in which this expression is found.
    pub filter: Option<Regex>,
    /// Turns `filter` around.
    pub invert_filter: bool,
    /// Only this kind; `None` is all.
    pub kind: Option<StatType>,
}

impl Query {
    pub(crate) fn wants(&self, kind: StatType) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }

    pub(crate) fn wants_name(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.is_match(name) != self.invert_filter)
    }
}
