//! `circuit_breakers` -> limits per priority.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::{
    CircuitBreakers,
    circuit_breakers::{Thresholds as Message, thresholds::RetryBudget as BudgetMessage},
};

use super::fields::{Notes, duration, number};
use crate::circuit_breakers::{RetryBudget, Thresholds};

/// The limits in the order of [`crate::RoutingPriority::ALL`]. The first entry of a priority counts, as in Envoy.
pub(crate) fn lower(
    message: Option<CircuitBreakers>,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<[Thresholds; 2], ConfigError> {
    let mut levels = [None; 2];
    let Some(CircuitBreakers {
        thresholds,
        per_host_thresholds: _, // read where connections are
    }) = message
    else {
        return Ok([Thresholds::default(); 2]);
    };
    for (index, message) in thresholds.into_iter().enumerate() {
        let path = path.field("thresholds").index(index);
        let level =
            usize::try_from(message.priority).ok().and_then(|priority| levels.get_mut(priority)).ok_or_else(
                || ConfigError::new(path.field("priority"), "value must be one of the defined enum values"),
            )?;
        if level.is_some() {
            notes.warn(path.clone(), "an earlier entry for the same priority is in force");
            continue;
        }
        *level = Some(lower_level(message, &path)?);
    }
    Ok(levels.map(Option::unwrap_or_default))
}

fn lower_level(message: Message, path: &FieldPath) -> Result<Thresholds, ConfigError> {
    let Message {
        priority: _, // the caller sorted by it
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    let defaults = Thresholds::default();
    let limit = |value, default| number(value).map_or(default, u64::from);
    let retry_budget = retry_budget.map(|budget| {
        let BudgetMessage { budget_percent, budget_interval, min_retry_concurrency } = budget;
        let path = path.field("retry_budget");
        let interval = duration(budget_interval, || path.field("budget_interval"))?;
        Ok(RetryBudget {
            percent: budget_percent.map_or(20.0, |percent| percent.value),
            min_concurrency: limit(min_retry_concurrency, 3),
            interval: interval.filter(|interval| !interval.is_zero()),
        })
    });
    Ok(Thresholds {
        max_connections: limit(max_connections, defaults.max_connections),
        max_pending_requests: limit(max_pending_requests, defaults.max_pending_requests),
        max_requests: limit(max_requests, defaults.max_requests),
        max_retries: limit(max_retries, defaults.max_retries),
        max_connection_pools: limit(max_connection_pools, defaults.max_connection_pools),
        retry_budget: retry_budget.transpose()?,
        track_remaining,
    })
}
