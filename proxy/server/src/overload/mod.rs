//! The overload manager: looks at resources now and then, and tells workers what to do about those that run short.

mod config;
mod processors;

pub(crate) use config::{OverloadSettings, lower};

use std::path::Path;
use std::time::Instant;

use dhow_proxy_runtime::overload;
use dhow_stats::{Store, stat_group};

use crate::server_stats::resident_bytes;
use config::{Action, Effect, Monitor, Point, Resource, Trigger};
use processors::Processors;

stat_group! {
    /// What is known of a resource, `overload.<name>.*`.
    struct ResourceStats {
        counters { failed_updates, skipped_updates }
        gauges { pressure }
    }
}

stat_group! {
    /// The same of one that is counted and not looked at.
    struct CountedStats {
        counters { failed_updates }
        gauges { pressure }
    }
}

stat_group! {
    /// What is known of an action, `overload.<name>.*`.
    struct ActionStats {
        gauges { active, scale_percent }
    }
}

stat_group! {
    /// What `shrink_heap` counts beside.
    struct ShrinkStats {
        counters { shrink_count }
    }
}

stat_group! {
    /// What is known of a point at which load is shed, `overload.<name>.*`.
    struct PointStats {
        counters { shed_load_count }
        gauges { scale_percent }
    }
}

enum StatsOfMonitor {
    Looked(ResourceStats),
    Counted(CountedStats),
}

/// Starts to look at the resources, on the thread that calls.
pub(crate) fn start(settings: OverloadSettings, store: &Store) {
    if let Some(max) = settings.max_connections() {
        overload().set_max_connections(max);
    }
    let mut manager = Manager::new(settings, store);
    tokio::task::spawn_local(async move {
        let mut interval = tokio::time::interval(manager.settings.refresh);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            manager.refresh();
        }
    });
}

struct Manager {
    settings: OverloadSettings,
    monitors: Vec<StatsOfMonitor>,
    actions: Vec<ActionStats>,
    points: Vec<PointStats>,
    shrink: Option<ShrinkStats>,
    shrunk: Option<Instant>,
    processors: Processors,
    /// What was found out last, by monitor.
    pressures: Vec<f64>,
}

impl Manager {
    fn new(settings: OverloadSettings, store: &Store) -> Self {
        let scope = |name: &str| store.scope(&format!("overload.{name}."));
        let monitors = settings.monitors.iter().map(|Monitor { name, resource }| match resource {
            Resource::Connections { .. } => StatsOfMonitor::Counted(scope(name).group()),
            Resource::Memory { .. } | Resource::File(_) | Resource::Processors => {
                StatsOfMonitor::Looked(scope(name).group())
            }
        });
        let shrinks = |action: &&Action| matches!(action.effect, Effect::ShrinkHeap(_));
        Self {
            monitors: monitors.collect(),
            actions: settings.actions.iter().map(|action| scope(&action.name).group()).collect(),
            points: settings.points.iter().map(|point| scope(&point.name).group()).collect(),
            shrink: settings.actions.iter().find(shrinks).map(|action| scope(&action.name).group()),
            shrunk: None,
            processors: Processors::default(),
            pressures: vec![0.0; settings.monitors.len()],
            settings,
        }
    }

    /// Looks at all resources, and sets all actions accordingly.
    fn refresh(&mut self) {
        for (at, Monitor { name, resource }) in self.settings.monitors.iter().enumerate() {
            let looked = look(resource, &mut self.processors);
            let pressure = match (&self.monitors[at], looked) {
                (StatsOfMonitor::Counted(stats), looked) => {
                    stats.failed_updates().add(overload().take_refused());
                    let share = looked.unwrap_or(0.0);
                    stats.pressure().set(percent(share));
                    share
                }
                (StatsOfMonitor::Looked(stats), Ok(pressure)) => {
                    stats.pressure().set(percent(pressure));
                    pressure
                }
                (StatsOfMonitor::Looked(stats), Err(error)) => {
                    stats.failed_updates().inc();
                    tracing::info!("Failed to update resource {name}: {error}");
                    continue;
                }
            };
            self.pressures[at] = pressure;
        }
        let share_of = |triggers: &[Trigger]| {
            let shares =
                triggers.iter().map(|trigger| trigger.threshold.share(self.pressures[trigger.monitor]));
            shares.fold(0.0, f64::max)
        };
        for (Point { point, triggers, .. }, stats) in self.settings.points.iter().zip(&self.points) {
            let share = share_of(triggers);
            stats.scale_percent().set(percent(f64::from(share as f32)));
            if let Some(point) = *point {
                overload().set_point(point, share);
                stats.shed_load_count().add(overload().take_shed(point));
            }
        }
        for (action, stats) in self.settings.actions.iter().zip(&self.actions) {
            let share = share_of(&action.triggers);
            stats.active().set(u64::from(share >= 1.0));
            // Envoy keeps no more of the share than this.
            stats.scale_percent().set(percent(f64::from(share as f32)));
            match action.effect {
                Effect::OfWorkers(action) => overload().set(action, share),
                Effect::ShrinkHeap(interval) => {
                    let rested = self.shrunk.is_none_or(|at| at.elapsed() >= interval);
                    if share >= 1.0 && rested {
                        dhow_proxy_runtime::release_free_memory();
                        self.shrunk = Some(Instant::now());
                        if let Some(shrink) = &self.shrink {
                            shrink.shrink_count().inc();
                        }
                    }
                }
                Effect::None => {}
            }
        }
    }
}

/// Whole percents, what is left over dropped.
fn percent(share: f64) -> u64 {
    (share * 100.0) as u64
}

/// How much of a resource is used, as a share of what there is.
fn look(resource: &Resource, processors: &mut Processors) -> Result<f64, String> {
    match resource {
        Resource::Memory { max } => Ok(resident_bytes() as f64 / (*max).max(1) as f64),
        Resource::File(file) => read_number(file),
        Resource::Processors => {
            let text = std::fs::read_to_string("/proc/stat").map_err(|error| error.to_string())?;
            processors.update(&text).ok_or_else(|| "cannot read times of processors".to_owned())
        }
        Resource::Connections { max } => Ok(overload().connections() as f64 / (*max).max(1) as f64),
    }
}

/// `injected_resource`: a number from 0 to 1 in a file.
fn read_number(file: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let number = text.trim().parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "failed to parse injected resource pressure".to_owned())
}
