//! What `solon demo` shows over RDMA is what it shows over TCP.

use super::tools::run;

/// The attacked leg with Solon, and the verdict's lines.
fn demo(transport: &str) -> (serde_json::Value, serde_json::Value) {
    let places = ["--listen", "10.0.0.2", "--daemon-devices", "rxe1", "--worker-devices", "rxe0"];
    let run_short =
        ["demo", "--steps", "3", "--workers", "6", "--report", "/tmp/report.html", "--json", "--transport", transport];
    let output = run("solon", &[&run_short[..], &places].concat());
    let whole: serde_json::Value = serde_json::from_str(output.lines().last().expect("a report")).expect("JSON");
    let legs = whole["report"]["legs"].as_array().expect("legs");
    let solon = legs.iter().find(|leg| leg["kind"] == "attacked-solon").expect("the leg").clone();
    (solon, whole)
}

#[test]
#[ignore = "runs in the guest"]
fn the_demo_ends_with_the_same_weights_over_rdma_and_over_tcp() {
    let (by_rdma, whole) = demo("rdma");
    let (by_tcp, _) = demo("tcp");
    assert_eq!((&by_rdma["by_rdma"], &by_tcp["by_rdma"]), (&6.into(), &0.into()));
    assert!(by_rdma["weights_digest"].is_string());
    assert_eq!(by_rdma["weights_digest"], by_tcp["weights_digest"]);
    let liars = &whole["report"]["liars"];
    assert_eq!(liars.as_array().map(Vec::len), Some(2));
    for step in by_rdma["steps"].as_array().expect("steps") {
        assert_eq!(&step["liars"], liars, "{step}");
    }
    println!("weights {} over both, liars {liars} named in every step", by_rdma["weights_digest"]);
}
