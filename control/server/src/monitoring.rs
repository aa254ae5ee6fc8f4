//! HTTP beside the xDS service: readiness, metrics, and what the control plane knows.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use dhow_control_discovery::Discovery;
use dhow_control_sources::Severity;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::mesh_generation::{MeshGeneration, notice_text};

struct Monitoring {
    discovery: Discovery<MeshGeneration>,
    generation: MeshGeneration,
    started: Instant,
}

/// Serves until it is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    discovery: Discovery<MeshGeneration>,
    generation: MeshGeneration,
) {
    let shared = Arc::new(Monitoring { discovery, generation, started: Instant::now() });
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a monitoring connection failed");
                // Out of descriptors: others have to close some first.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = shared.answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that hangs up is its own business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Monitoring {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match path {
            "/ready" => text(StatusCode::OK, String::new()),
            "/version" => text(StatusCode::OK, format!("{}\n", env!("CARGO_PKG_VERSION"))),
            "/metrics" => text(StatusCode::OK, self.metrics()),
            "/debug/syncz" => pretty(serde_json::to_value(self.discovery.syncz()).unwrap_or(Value::Null)),
            "/debug/configz" => pretty(self.configz()),
            "/debug/push_status" => pretty(self.push_status()),
            "/debug/registryz" => pretty(self.registryz()),
            _ => text(
                StatusCode::NOT_FOUND,
                "/ready /version /metrics /debug/syncz /debug/configz /debug/push_status /debug/registryz\n"
                    .to_owned(),
            ),
        }
    }

    fn metrics(&self) -> String {
        let snapshot = self.generation.snapshot();
        let rejected = snapshot.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let mut out = String::new();
        let gauges: [(&str, &str, f64); 6] = [
            ("pilot_services", "Total services known to pilot.", snapshot.push.services.len() as f64),
            (
                "pilot_virt_services",
                "Total virtual services known to pilot.",
                snapshot.push.virtual_services.len() as f64,
            ),
            (
                "pilot_destrule_subsets",
                "Subsets in destination rules.",
                snapshot.push.destination_rules.subset_count() as f64,
            ),
            (
                "pilot_total_rejected_configs",
                "Configuration documents that are refused at present.",
                rejected as f64,
            ),
            ("pilot_k8s_object_count", "Objects that are live at present.", snapshot.objects.len() as f64),
            (
                "istiod_uptime_seconds",
                "Time since the control plane started.",
                self.started.elapsed().as_secs_f64(),
            ),
        ];
        for (name, help, value) in gauges {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
        }
        let version = env!("CARGO_PKG_VERSION");
        let _ = write!(
            out,
            "# HELP istio_build Component build info.\n# TYPE istio_build gauge\nistio_build{{component=\"pilot\",tag=\"{version}\"}} 1\n"
        );
        self.discovery.metrics().render(&mut out);
        out
    }

    /// Live objects with their origin.
    fn configz(&self) -> Value {
        let snapshot = self.generation.snapshot();
        let objects = snapshot.objects.iter().map(|object| {
            let meta = &object.meta;
            json!({"kind": meta.kind.as_str(), "namespace": meta.namespace, "name": meta.name, "origin": meta.origin.to_string()})
        });
        Value::Array(objects.collect())
    }

    /// What is wrong with the configuration.
    fn push_status(&self) -> Value {
        let snapshot = self.generation.snapshot();
        let of = |severity| -> Vec<String> {
            snapshot
                .problems
                .iter()
                .filter(|problem| problem.severity == severity)
                .map(ToString::to_string)
                .collect()
        };
        let notices: Vec<String> = snapshot.push.notices.iter().map(notice_text).collect();
        json!({"errors": of(Severity::Error), "warnings": of(Severity::Warning), "notices": notices})
    }

    /// Services with the number of their endpoints.
    fn registryz(&self) -> Value {
        let snapshot = self.generation.snapshot();
        let services = snapshot.push.services.iter().map(|service| {
            let ports = service.ports.iter().zip(&service.endpoints).map(|(port, endpoints)| {
                json!({"port": port.number, "name": port.name, "endpoints": endpoints.len()})
            });
            json!({"hostname": service.host.as_str(), "namespace": service.namespace, "ports": ports.collect::<Vec<_>>()})
        });
        Value::Array(services.collect())
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn pretty(value: Value) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
