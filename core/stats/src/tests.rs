//! The store as its users see it.

use regex::Regex;

use crate::{
    Counter, HistogramBuckets, Query, StatType, Store, TagRules, Unit, render_json, render_prometheus,
    render_text,
};

crate::stat_group! {
    /// A few stats of a cluster.
    struct ClusterStats {
        counters { upstream_cx_total, upstream_rq_total }
        gauges { upstream_cx_active, bytes = "rx.bytes_buffered" }
        histograms { upstream_cx_length_ms: Milliseconds }
    }
}

fn text(store: &Store, query: &Query) -> String {
    render_text(store, &store.snapshot(query), HistogramBuckets::Summary)
}

#[test]
fn threads_add_up_and_outlive_their_end() {
    let store = Store::new();
    let stats: ClusterStats = store.scope("cluster.a").group();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let stats = stats.clone();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    stats.upstream_rq_total().inc();
                    stats.upstream_cx_active().inc();
                    stats.upstream_cx_length_ms().record(7);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    for _ in 0..4000 {
        stats.upstream_cx_active().dec();
    }
    assert_eq!(stats.upstream_rq_total().value(), 4000);
    assert_eq!(stats.upstream_cx_active().value(), 0);
    store.merge_histograms();
    let lines = text(&store, &Query { used_only: true, ..Query::default() });
    let expected = "cluster.a.upstream_cx_active: 0\ncluster.a.upstream_rq_total: 4000\ncluster.a.upstream_cx_length_ms: P0(";
    assert!(lines.starts_with(expected), "{lines}");
    assert_eq!(stats.bytes().value(), 0);
    assert_eq!(stats.upstream_cx_total().value(), 0);
    assert_eq!(stats.scope().prefix(), "cluster.a");
}

#[test]
fn the_same_name_is_the_same_stat() {
    let store = Store::new();
    let scope = store.scope("http.in.");
    scope.counter("rq_total").inc();
    store.scope("http.in").counter("rq_total").add(2);
    let again: ClusterStats = scope.group();
    let first: ClusterStats = scope.group();
    first.upstream_cx_total().inc();
    assert_eq!(again.upstream_cx_total().value(), 1);
    assert_eq!(scope.counter("rq_total").value(), 3);
    // Spelled in two halves, it is one line too.
    let _root = store.scope("");
    let split = store.scope("http");
    split.counter("in.rq_total").inc();
    let query = Query { filter: Some(Regex::new("rq_total$").unwrap()), used_only: true, ..Query::default() };
    assert_eq!(text(&store, &query), "http.in.rq_total: 4\n");
}

#[test]
fn a_dropped_scope_is_gone_and_its_slots_start_from_zero() {
    let store = Store::new();
    for round in 0..50 {
        let scope = store.scope("cluster.gone");
        let stats: ClusterStats = scope.group();
        let single = scope.counter("one");
        let histogram = scope.histogram("h", Unit::Bytes);
        assert_eq!((stats.upstream_rq_total().value(), single.value()), (0, 0), "round {round}");
        store.merge_histograms();
        assert_eq!(text(&store, &Query { used_only: true, ..Query::default() }), "", "round {round}");
        stats.upstream_rq_total().add(5);
        stats.upstream_cx_active().inc();
        single.inc();
        histogram.record(3);
        drop(stats);
        assert_ne!(text(&store, &Query::default()), "");
        drop(scope);
        assert_eq!(text(&store, &Query::default()), "");
    }
}

#[test]
fn names_are_sanitised() {
    let store = Store::new();
    let scope = store.scope("listener.[::1]:80.");
    scope.counter("x").inc();
    assert_eq!(text(&store, &Query::default()), "listener.[__1]_80.x: 1\n");
    let nested = scope.scope("http.p");
    nested.gauge("g").set(3);
    assert_eq!(nested.prefix(), "listener.[__1]_80.http.p");
}

#[test]
fn verbatim_names_keep_their_colons() {
    let store = Store::new();
    let scope = store.scope_verbatim("vhost.a:b");
    scope.counter_verbatim("x:y").inc();
    scope.counter("x:z").inc();
    let nested = scope.scope_verbatim("c:d");
    nested.counter("n").inc();
    assert_eq!(text(&store, &Query::default()), "vhost.a:b.c:d.n: 1\nvhost.a:b.x:y: 1\nvhost.a:b.x_z: 1\n");
}

#[test]
fn gauges_can_be_set_over_what_threads_added() {
    let store = Store::new();
    // A handle is as good as its scope: without it another test gets the slot.
    let scope = store.scope("a");
    let gauge = scope.gauge("g");
    gauge.add(5);
    gauge.set(2);
    assert_eq!(gauge.value(), 2);
    gauge.sub(1);
    assert_eq!(gauge.value(), 1);
    gauge.sub(3);
    assert_eq!(gauge.value(), 0, "a sum below zero reads as zero");
}

#[test]
fn counters_reset_and_stay_used() {
    let store = Store::new();
    let scope = store.scope("a");
    let counter = scope.counter("c");
    counter.add(7);
    store.reset_counters();
    assert_eq!(counter.value(), 0);
    assert_eq!(text(&store, &Query { used_only: true, ..Query::default() }), "a.c: 0\n");
    counter.inc();
    assert_eq!(counter.value(), 1);
}

#[test]
fn queries_select_by_name_and_kind() {
    let store = Store::new();
    let scope = store.scope("a");
    scope.counter("one").inc();
    scope.gauge("two").set(2);
    scope.text_readout("three").set("drei");
    let filter = |expression: &str| Some(Regex::new(expression).unwrap());
    assert_eq!(text(&store, &Query { kind: Some(StatType::Gauges), ..Query::default() }), "a.two: 2\n");
    assert_eq!(text(&store, &Query { filter: filter("th"), ..Query::default() }), "a.three: \"drei\"\n");
    let inverted = Query { filter: filter("o"), invert_filter: true, ..Query::default() };
    assert_eq!(text(&store, &inverted), "a.three: \"drei\"\n");
    store.set_matcher(|name| name != "a.one");
    assert_eq!(text(&store, &Query::default()), "a.three: \"drei\"\na.two: 2\n");
    Counter::NONE.inc();
    assert_eq!(text(&store, &Query::default()), "a.three: \"drei\"\na.two: 2\n");
}

#[test]
fn a_matcher_of_a_scope_goes_over_that_of_all() {
    let store = Store::new();
    let scopes = ["cluster.a", "cluster.a.sub", "cluster.ab"].map(|prefix| store.scope(prefix));
    for scope in &scopes {
        scope.counter("one").inc();
        scope.counter("two").inc();
    }
    let names = || {
        let snapshot = store.snapshot(&Query::default());
        snapshot.stats.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    store.set_matcher(|_| false);
    store.set_matcher_below("cluster.a", Some(|name: &str| name.ends_with("one")));
    assert_eq!(names(), ["cluster.a.one", "cluster.a.sub.one"]);
    store.set_matcher_below("cluster.a", None::<fn(&str) -> bool>);
    assert_eq!(names(), [""; 0]);
}

#[test]
fn response_codes_appear_when_seen() {
    let store = Store::new();
    let scope = store.scope("cluster.c");
    let codes = scope.response_codes("upstream_rq");
    assert_eq!(text(&store, &Query::default()), "");
    for code in [200, 200, 503, 99, 700] {
        codes.charge(code);
    }
    let expected = "cluster.c.upstream_rq_200: 2\ncluster.c.upstream_rq_2xx: 2\ncluster.c.upstream_rq_503: 1\n\
                    cluster.c.upstream_rq_5xx: 1\ncluster.c.upstream_rq_completed: 5\ncluster.c.upstream_rq_unknown: 2\n";
    assert_eq!(text(&store, &Query::default()), expected);
}

#[test]
fn registered_classes_are_there_from_the_start() {
    let store = Store::new();
    let codes = store.scope("http.a").response_codes("downstream_rq");
    codes.register_classes();
    codes.charge_class(404);
    let expected = "http.a.downstream_rq_1xx: 0\nhttp.a.downstream_rq_2xx: 0\nhttp.a.downstream_rq_3xx: 0\n\
                    http.a.downstream_rq_4xx: 1\nhttp.a.downstream_rq_5xx: 0\nhttp.a.downstream_rq_completed: 1\n";
    assert_eq!(text(&store, &Query::default()), expected);
}

#[test]
fn pages_are_envoys() {
    let store = Store::new();
    let scope = store.scope("cluster.u1");
    scope.counter("upstream_rq_200").add(4);
    scope.gauge("version").set(0);
    let sizes = scope.histogram("upstream_rs_body_size", Unit::Bytes);
    [0, 124, 124, 124, 124].into_iter().for_each(|size| sizes.record(size));
    scope.histogram("empty", Unit::Milliseconds);
    store.merge_histograms();
    let all = store.snapshot(&Query::default());
    assert_eq!(
        render_text(&store, &all, HistogramBuckets::Summary),
        "cluster.u1.upstream_rq_200: 4\ncluster.u1.version: 0\ncluster.u1.empty: No recorded values\n\
         cluster.u1.upstream_rs_body_size: P0(0,0) P25(122,122) P50(124,124) P75(126,126) P90(128,128) P95(128,128) \
         P99(128,128) P99.5(128,128) P99.9(128,128) P100(128,128)\n"
    );
    let query = Query { filter: Some(Regex::new("size|200").unwrap()), ..Query::default() };
    let some = store.snapshot(&query);
    let json = render_json(&store, &some, HistogramBuckets::Summary);
    assert!(json.starts_with("{\"stats\":[{\"name\":\"cluster.u1.upstream_rq_200\",\"value\":4},{\"histograms\":{\"supported_quantiles\":[0,25,50,75,90,95,99,99.5,99.9,100],"), "{json}");
    let detailed = render_text(&store, &some, HistogramBuckets::Detailed);
    assert!(detailed.contains("upstream_rs_body_size:\n  totals=0,0:1, 120,10:4\n  intervals=0,0:1, 120,10:4\n  summary=P0(0,0) "), "{detailed}");
    let prometheus = render_prometheus(&store, &some, HistogramBuckets::Cumulative, false);
    for line in [
        "# TYPE envoy_cluster_upstream_rq counter\nenvoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"u1\"} 4\n",
        "# TYPE envoy_cluster_upstream_rs_body_size histogram\nenvoy_cluster_upstream_rs_body_size_bucket{envoy_cluster_name=\"u1\",le=\"0.5\"} 1\n",
        "envoy_cluster_upstream_rs_body_size_bucket{envoy_cluster_name=\"u1\",le=\"250\"} 5\n",
        "envoy_cluster_upstream_rs_body_size_bucket{envoy_cluster_name=\"u1\",le=\"+Inf\"} 5\n",
        "envoy_cluster_upstream_rs_body_size_sum{envoy_cluster_name=\"u1\"} 499.1999999999999886313162278384\n",
        "envoy_cluster_upstream_rs_body_size_count{envoy_cluster_name=\"u1\"} 5\n",
    ] {
        assert!(prometheus.contains(line), "{prometheus}");
    }
    // A second merge without new numbers has an empty interval.
    store.merge_histograms();
    let later = text(&store, &query);
    assert!(later.contains("P0(nan,0) P25(nan,122)"), "{later}");
}

#[test]
fn prometheus_labels_can_be_turned_off_and_are_escaped() {
    let store = Store::new();
    let scope = store.scope("cluster.a\"b");
    scope.counter("x-y").inc();
    scope.text_readout("t").set("v");
    let page =
        || render_prometheus(&store, &store.snapshot(&Query::default()), HistogramBuckets::Cumulative, true);
    assert_eq!(
        page(),
        "# TYPE envoy_cluster_x_y counter\nenvoy_cluster_x_y{envoy_cluster_name=\"a\\\"b\"} 1\n\
         # TYPE envoy_cluster_t gauge\nenvoy_cluster_t{envoy_cluster_name=\"a\\\"b\",text_value=\"v\"} 0\n"
    );
    store.set_tag_rules(TagRules { custom: vec![], use_default: false, ..TagRules::default() });
    assert!(
        page().starts_with("# TYPE envoy_cluster_a_b_x_y counter\nenvoy_cluster_a_b_x_y{} 1\n"),
        "{}",
        page()
    );
}

#[test]
fn buckets_can_be_configured() {
    let store = Store::new();
    let scope = store.scope("a");
    scope.histogram("h", Unit::Milliseconds).record(7);
    store.add_histogram_buckets(|name| name.starts_with("a."), vec![5.0, 10.0]);
    store.merge_histograms();
    let page = render_text(&store, &store.snapshot(&Query::default()), HistogramBuckets::Cumulative);
    assert_eq!(page, "a.h: B5(0,0) B10(1,1)\n");
    let page = render_text(&store, &store.snapshot(&Query::default()), HistogramBuckets::Disjoint);
    assert_eq!(page, "a.h: B5(0,0) B10(1,1)\n");
}

#[test]
fn a_narrowed_store_is_shown_with_its_parent_by_rules_of_its_own() {
    let store = Store::new();
    store.set_matcher(|name| name.ends_with(".seen"));
    let narrowed = store.narrowed(|name| name.ends_with(".own"));
    let scopes = [&store, &narrowed].map(|store| store.scope("a"));
    for scope in &scopes {
        for name in ["seen", "own"] {
            scope.counter(name).inc();
        }
        scope.histogram("b.own", Unit::Milliseconds).record(1);
    }
    store.merge_histograms();
    let shown = || render_text(&store, &store.snapshot(&Query::default()), HistogramBuckets::default());
    let page = shown();
    assert!(page.starts_with("a.own: 1\na.seen: 1\na.b.own: P0(1.05,1.05)"), "{page}");
    store.reset_counters();
    let page = shown();
    assert!(page.starts_with("a.own: 0\na.seen: 0\n"), "{page}");
    drop((scopes, narrowed));
    assert_eq!(shown(), "");
}
