//! Filters between the router and the connection to a host: each attempt passes them anew, with what those of the attempts before
//! made of the request.

use dhow_proxy_api::{FilterStream, HeadersVerdict};
use dhow_runtime_config::Current;

use super::Forwarding;
use crate::stream::Exchange;

impl Exchange {
    /// Shows the request head to the upstream filters of an attempt.
    pub(super) fn filter_upstream_request(&mut self, forwarding: &mut Forwarding) {
        let manager = self.manager.clone();
        let Some(router) = &manager.config.chain_of(self.upgrade_chain).router else { return };
        let configured = &router.upstream_filters;
        if configured.is_empty() {
            return;
        }
        let route = self.info.route.as_ref();
        let made = configured.iter().filter_map(|filter| {
            let levels = route.map(|route| route.filter_configs().levels(&filter.name)).unwrap_or_default();
            let disabled = levels.first().map_or(filter.disabled, |level| level.disabled);
            if disabled { None } else { filter.factory.create(levels) }
        });
        forwarding.upstream_filters = made.collect();
        for filter in &mut forwarding.upstream_filters {
            let mut stream = FilterStream {
                info: &mut self.info,
                random: self.random,
                control: &mut self.control,
                runtime: &Current,
                clusters: &*manager,
            };
            let verdict = filter.decode_headers(&mut self.request, self.end_stream, &mut stream);
            debug_assert!(matches!(verdict, HeadersVerdict::Continue), "only filters of heads are accepted");
        }
    }

    /// Shows the response head of an attempt to its upstream filters, last one first.
    pub(super) fn filter_upstream_response(&mut self, forwarding: &mut Forwarding, end: bool) {
        if forwarding.upstream_filters.is_empty() {
            return;
        }
        let manager = self.manager.clone();
        for filter in forwarding.upstream_filters.iter_mut().rev() {
            let mut stream = FilterStream {
                info: &mut self.info,
                random: self.random,
                control: &mut self.control,
                runtime: &Current,
                clusters: &*manager,
            };
            let verdict = filter.encode_headers(&self.request, &mut self.response, end, &mut stream);
            debug_assert!(matches!(verdict, HeadersVerdict::Continue), "only filters of heads are accepted");
        }
    }
}
