//! Selects the backend of a call: the same for all calls of a rollout while the set of backends is the same; when the set
//! changes, few rollouts move.
//!
//! Weighted rendezvous hashing: the hash of rollout and backend is a score, and the highest score wins. If the winner has
//! more calls in flight than its share, the next one gets the call.

use super::backends::Backend;
use aws_lc_rs::digest;
use std::sync::Arc;

/// The backend for a key, other than those that were tried. `None`: all were tried, or there are none.
pub(super) fn select(key: &str, backends: &[Arc<Backend>], tried: &[Arc<Backend>]) -> Option<Arc<Backend>> {
    let mut ranked: Vec<(f64, &Arc<Backend>)> = backends
        .iter()
        .filter(|backend| !contains(tried, backend))
        .map(|backend| (score(key, &backend.id, backend.weight()), backend))
        .collect();
    ranked.sort_by(|(left, _), (right, _)| right.total_cmp(left));
    let healthy: Vec<_> = ranked.iter().filter(|(_, backend)| backend.is_healthy()).collect();
    let in_flight: usize = healthy.iter().map(|(_, backend)| backend.in_flight()).sum();
    let weight: f64 = healthy.iter().map(|(_, backend)| backend.weight()).sum();
    #[expect(clippy::cast_precision_loss, reason = "numbers of calls in flight are small")]
    let has_room = |backend: &Backend| {
        let share = (in_flight + 1) as f64 * backend.weight() / weight;
        (backend.in_flight() as f64) < (share * MAX_LOAD_FACTOR).ceil()
    };
    let chosen = healthy.iter().find(|(_, backend)| has_room(backend)).or(healthy.first()).copied();
    // An unhealthy backend is better than none.
    chosen.or(ranked.first()).map(|(_, backend)| Arc::clone(backend))
}

/// `-weight / ln(u)`, with `u` uniform in (0, 1) by a hash: with it each backend wins its share of the keys.
fn score(key: &str, backend: &str, weight: f64) -> f64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(key.as_bytes());
    context.update(b"\0");
    context.update(backend.as_bytes());
    let digest = context.finish();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_ref()[..8]);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
    let uniform = ((u64::from_be_bytes(bytes) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -weight / uniform.ln()
}

/// How many times its share of the calls in flight a backend may have.
const MAX_LOAD_FACTOR: f64 = 1.25;

/// True if `backend` is one of `backends`: the same registration, not an equal one.
pub(super) fn contains(backends: &[Arc<Backend>], backend: &Arc<Backend>) -> bool {
    backends.iter().any(|other| Arc::ptr_eq(other, backend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::backends::Backends;
    use crate::gateway::settings::BackendSettings;

    fn backends(count: usize) -> (Backends, Vec<Arc<Backend>>) {
        let all = Backends::default();
        for at in 0..count {
            let settings: BackendSettings =
                serde_json::from_value(serde_json::json!({ "model": "m", "url": format!("http://gpu{at}/v1") }))
                    .unwrap();
            all.register(&settings, None).unwrap();
        }
        let list = all.of("m");
        (all, list)
    }

    fn choice(rollout: usize, list: &[Arc<Backend>]) -> String {
        select(&format!("ro-{rollout}"), list, &[]).unwrap().id.clone()
    }

    #[test]
    fn few_rollouts_move_when_a_backend_is_added() {
        let (_, list) = backends(5);
        let before: Vec<String> = (0..1000).map(|rollout| choice(rollout, &list[..4])).collect();
        let moved: Vec<String> = (0..1000)
            .map(|rollout| choice(rollout, &list))
            .zip(before)
            .filter(|(now, was)| now != was)
            .map(|(now, _)| now)
            .collect();
        assert!((120..280).contains(&moved.len()), "a fifth of them: {}", moved.len());
        assert!(moved.iter().all(|now| *now == list[4].id), "to the new one only");
    }

    #[test]
    fn overloaded_and_unhealthy_backends_are_skipped() {
        let (_, list) = backends(3);
        let first = select("ro", &list, &[]).unwrap();
        let calls: Vec<_> = (0..10).map(|_| first.enter()).collect();
        let second = select("ro", &list, &[]).unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "it has more than its share");
        drop(calls);
        assert!(Arc::ptr_eq(&first, &select("ro", &list, &[]).unwrap()));
        first.on_failure(&"test");
        assert!(Arc::ptr_eq(&second, &select("ro", &list, &[]).unwrap()));
        assert!(select("ro", &list, &list).is_none());
        list.iter().for_each(|backend| backend.on_failure(&"test"));
        assert!(Arc::ptr_eq(&first, &select("ro", &list, &[]).unwrap()), "an unhealthy backend is better than none");
    }

    #[test]
    fn weights_are_shares() {
        let (all, _) = backends(1);
        let heavy = serde_json::json!({ "model": "m", "url": "http://heavy/v1", "weight": 3.0 });
        all.register(&serde_json::from_value(heavy).unwrap(), None).unwrap();
        let list = all.of("m");
        let heavy = (0..2000).filter(|rollout| choice(*rollout, &list).contains("heavy")).count();
        assert!((1400..1600).contains(&heavy), "three quarters: {heavy}");
    }
}
