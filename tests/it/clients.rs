//! Unmodified clients: the real Python packages and curl, against the mock over HTTPS, without a change of code.

use crate::support::{Bench, python, text};

const OPENAI: &str = r#"
import asyncio, sys, time
from openai import OpenAI, AsyncOpenAI
import requests, httpx
base = sys.argv[1]
ask = dict(model="mock", messages=[{"role": "user", "content": "hello"}])
client = OpenAI(base_url=base + "/v1", api_key="sk-test")
assert client.chat.completions.create(**ask).choices[0].message.content
stream = client.chat.completions.create(stream=True, **ask, extra_headers={"x-mock-chunk-delay-ms": "100", "x-mock-chunks": "10"})
times = []
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        times.append(time.monotonic())
gaps = [b - a for a, b in zip(times, times[1:])]
assert len(times) == 10, len(times)
# At the mock's pace: were the answer held back, the chunks would come at once.
assert sum(gap > 0.05 for gap in gaps) >= 7, gaps
assert client.responses.create(model="mock", input="hello").output_text
async def both():
    asynchronous = AsyncOpenAI(base_url=base + "/v1", api_key="sk-test")
    await asyncio.gather(*[asynchronous.chat.completions.create(**ask) for _ in range(3)])
asyncio.run(both())
assert requests.get(base + "/echo").json()["method"] == "GET"
with httpx.Client(http2=True) as http2:
    answer = http2.get(base + "/echo")
    assert answer.http_version == "HTTP/2", answer.http_version
print("done")
"#;

#[test]
fn openai_requests_and_httpx_are_traced_unmodified() {
    let bench = Bench::new();
    let output = bench.run(&["--rollout", "ro-python"], &[&python(), "-c", OPENAI, &bench.https()]);
    assert!(output.status.success() && output.stdout == b"done\n", "{}", text(&output));
    let spans = bench.exchanges("ro-python", 8);
    assert_eq!(spans.len(), 8, "every exchange, and none twice");
    assert!(spans.iter().all(|span| span["attributes"]["tracewire.outcome"] == "complete"), "{spans:#?}");
    assert!(spans.iter().any(|span| span["attributes"]["network.protocol.version"] == "2"));
}

#[test]
fn curl_over_h1_and_h2_is_traced_unmodified() {
    let bench = Bench::new();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let rollout = format!("ro-curl-{version}");
        let url = format!("{}/echo", bench.https());
        let output = bench.run(&["--rollout", &rollout], &["curl", "-sS", "--fail", flag, &url]);
        assert!(output.status.success(), "{}", text(&output));
        let spans = bench.exchanges(&rollout, 1);
        assert_eq!(spans[0]["attributes"]["network.protocol.version"], version);
    }
}

#[test]
fn an_expected_continue_is_the_endpoints() {
    let bench = Bench::new();
    let url = format!("{}/upload", bench.http());
    let upload = ["curl", "-sS", "--fail", "-H", "Expect: 100-continue", "--data-binary", "hello", &url];
    let output = bench.run(&["--rollout", "ro-expect"], &upload);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"received\":5"), "{}", text(&output));
    assert_eq!(bench.exchanges("ro-expect", 1)[0]["attributes"]["http.request.body.size"], 5);
}
