//! Groups: all the stats of a kind of thing (a cluster, a listener) declared once and registered with one entry, so
//! that thousands of clusters do not each hold a hundred names.

use crate::Unit;
use crate::scope::Scope;

/// The names of a group of stats, relative to a scope.
#[derive(Debug)]
pub struct GroupShape {
    /// Counters, in slot order.
    pub counters: &'static [&'static str],
    /// Gauges, after the counters in slot order.
    pub gauges: &'static [&'static str],
    /// Histograms.
    pub histograms: &'static [(&'static str, Unit)],
}

impl GroupShape {
    /// Slots that one registration takes.
    pub(crate) fn slots(&self) -> usize {
        self.counters.len() + self.gauges.len()
    }
}

/// A type declared with [`stat_group!`](crate::stat_group).
pub trait StatGroup: Sized {
    /// The names.
    const SHAPE: &'static GroupShape;

    /// Builds the handles from the first slot and the first histogram id.
    #[doc(hidden)]
    fn from_base(scope: Scope, slots: u32, histograms: u32) -> Self;
}

/// Declares a struct whose methods are the handles of a group of stats, and whose names are those of the methods or, after `=`, another name.
///
/// ```
/// dhow_stats::stat_group! {
///     /// What one listener counts.
///     pub struct ListenerStats {
///         counters { downstream_cx_total, no_filter_chain_match, rx = "rx.bytes" }
///         gauges { downstream_cx_active }
///         histograms { downstream_cx_length_ms: Milliseconds }
///     }
/// }
/// let store = dhow_stats::Store::new();
/// let stats: ListenerStats = store.scope("listener.127.0.0.1_80.").group();
/// stats.downstream_cx_total().inc();
/// assert_eq!(stats.downstream_cx_total().value(), 1);
/// ```
///
/// The struct is cheap to clone and keeps its scope alive.
#[macro_export]
macro_rules! stat_group {
    (
        $(#[$meta:meta])* $vis:vis struct $name:ident {
            $(counters { $($counter:ident $(= $counter_name:literal)?),* $(,)? })?
            $(gauges { $($gauge:ident $(= $gauge_name:literal)?),* $(,)? })?
            $(histograms { $($histogram:ident $(= $histogram_name:literal)?: $unit:ident),* $(,)? })?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            scope: $crate::Scope,
            slots: u32,
            histograms: u32,
        }

        const _: () = {
            #[allow(non_camel_case_types, dead_code, reason = "variants are stat names; they are only used as numbers")]
            #[repr(u32)]
            enum Slot { $($($counter,)*)? __Counters, $($($gauge,)*)? }
            #[allow(non_camel_case_types, dead_code, reason = "variants are stat names; they are only used as numbers")]
            #[repr(u32)]
            enum HistogramAt { $($($histogram,)*)? __End }

            impl $crate::StatGroup for $name {
                const SHAPE: &'static $crate::GroupShape = &$crate::GroupShape {
                    counters: &[$($($crate::stat_group!(@name $counter $($counter_name)?),)*)?],
                    gauges: &[$($($crate::stat_group!(@name $gauge $($gauge_name)?),)*)?],
                    histograms: &[$($(
                        ($crate::stat_group!(@name $histogram $($histogram_name)?), $crate::Unit::$unit),
                    )*)?],
                };

                fn from_base(scope: $crate::Scope, slots: u32, histograms: u32) -> Self {
                    Self { scope, slots, histograms }
                }
            }

            #[allow(missing_docs, dead_code, reason = "each method is the stat of its name")]
            impl $name {
                /// The scope that these stats are in.
                pub fn scope(&self) -> &$crate::Scope {
                    &self.scope
                }

                $($(
                    #[inline]
                    pub fn $counter(&self) -> $crate::Counter {
                        $crate::Counter::in_group(self.slots, Slot::$counter as u32)
                    }
                )*)?
                $($(
                    #[inline]
                    pub fn $gauge(&self) -> $crate::Gauge {
                        $crate::Gauge::in_group(self.slots, Slot::$gauge as u32 - 1)
                    }
                )*)?
                $($(
                    #[inline]
                    pub fn $histogram(&self) -> $crate::Histogram {
                        $crate::Histogram::in_group(self.histograms, HistogramAt::$histogram as u32)
                    }
                )*)?
            }
        };
    };
    (@name $ident:ident) => { stringify!($ident) };
    (@name $ident:ident $name:literal) => { $name };
}

impl crate::Counter {
    #[doc(hidden)]
    #[inline]
    pub fn in_group(base: u32, at: u32) -> Self {
        if base == 0 { Self::NONE } else { Self { slot: base + at } }
    }
}

impl crate::Gauge {
    #[doc(hidden)]
    #[inline]
    pub fn in_group(base: u32, at: u32) -> Self {
        if base == 0 { Self::NONE } else { Self { slot: base + at } }
    }
}

impl crate::Histogram {
    #[doc(hidden)]
    #[inline]
    pub fn in_group(base: u32, at: u32) -> Self {
        if base == 0 { Self::NONE } else { Self { id: base + at } }
    }
}
