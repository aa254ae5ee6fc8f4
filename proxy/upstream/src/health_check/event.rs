//! `envoy.data.core.v3.HealthCheckEvent` as the lines of an event log.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::session::Event;
use dhow_net::StreamAddress;

use crate::event_log::{push_address, push_metadata, push_text, push_time};
use crate::host::Host;

/// What all events of a cluster share.
#[derive(Debug)]
pub(crate) struct EventSource<'a> {
    /// `HealthCheckerType`.
    pub(crate) checker: &'a str,
    pub(crate) cluster: &'a str,
    pub(crate) host: &'a Host,
    pub(crate) address: &'a StreamAddress,
}

/// One line without its line break. Fields stand in the order of their numbers, those of primitive types even when they
/// are zero, as Envoy prints them.
pub(crate) fn line(source: &EventSource<'_>, event: Event, now: SystemTime) -> String {
    let mut out = String::with_capacity(384);
    let _ = write!(out, "{{\"health_checker_type\":\"{}\",\"host\":", source.checker);
    push_address(&mut out, source.address);
    out.push_str(",\"cluster_name\":");
    push_text(&mut out, source.cluster);
    match event {
        Event::EjectUnhealthy(failure) => {
            let (kind, status) = (failure.kind.name(), failure.status);
            let _ = write!(
                out,
                ",\"eject_unhealthy_event\":{{\"failure_type\":\"{kind}\",\"http_status_code\":{status}}}"
            );
        }
        Event::AddHealthy { first_check } => {
            let _ = write!(out, ",\"add_healthy_event\":{{\"first_check\":{first_check}}}");
        }
        _ => {}
    }
    out.push_str(",\"timestamp\":");
    push_time(&mut out, now);
    match event {
        Event::Failed { failure, first_check } => {
            let (kind, status) = (failure.kind.name(), failure.status);
            let _ = write!(
                out,
                ",\"health_check_failure_event\":{{\"failure_type\":\"{kind}\",\"first_check\":{first_check},\
                 \"http_status_code\":{status}}}"
            );
        }
        Event::Degraded => out.push_str(",\"degraded_healthy_host\":{}"),
        Event::NoLongerDegraded => out.push_str(",\"no_longer_degraded_host\":{}"),
        _ => {}
    }
    push_metadata(&mut out, &source.host.metadata().endpoint);
    let locality = source.host.locality();
    out.push_str(",\"locality\":{\"region\":");
    push_text(&mut out, &locality.region);
    out.push_str(",\"zone\":");
    push_text(&mut out, &locality.zone);
    out.push_str(",\"sub_zone\":");
    push_text(&mut out, &locality.sub_zone);
    out.push('}');
    if event == Event::Successful {
        out.push_str(",\"successful_health_check_event\":{}");
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health_check::session::{Failure, FailureKind};
    use crate::host::HostSpec;

    #[test]
    fn lines_are_those_of_envoy() {
        let address = StreamAddress::Ip(([127, 0, 0, 1], 8080).into());
        let host = Host::new(HostSpec::at(address.clone()));
        let source = EventSource { checker: "HTTP", cluster: "one", host: &host, address: &address };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let head = "{\"health_checker_type\":\"HTTP\",\"host\":{\"socket_address\":{\"protocol\":\"TCP\",\
                    \"address\":\"127.0.0.1\",\"port_value\":8080,\"resolver_name\":\"\",\"ipv4_compat\":false,\
                    \"network_namespace_filepath\":\"\"}},\"cluster_name\":\"one\"";
        let tail = "\"locality\":{\"region\":\"\",\"zone\":\"\",\"sub_zone\":\"\"}";
        let failure = Failure { kind: FailureKind::Active, retriable: false, status: 503 };
        assert_eq!(
            line(&source, Event::EjectUnhealthy(failure), at),
            format!(
                "{head},\"eject_unhealthy_event\":{{\"failure_type\":\"ACTIVE\",\"http_status_code\":503}},\
                 \"timestamp\":\"1970-01-01T00:00:01.500Z\",{tail}}}"
            )
        );
        assert_eq!(
            line(&source, Event::Successful, at),
            format!(
                "{head},\"timestamp\":\"1970-01-01T00:00:01.500Z\",{tail},\"successful_health_check_event\":{{}}}}"
            )
        );
    }
}
