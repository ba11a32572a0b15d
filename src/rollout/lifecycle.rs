//! The state machine: how the status of an attempt changes its rollout and its worker, and how spans and deadlines
//! change attempts.
//!
//! Pure: no store, no clock. The rules are those of Agent Lightning 0.3, with two differences: a cancelled rollout stays
//! cancelled, and a rollout that leaves a final state has no end time.

use crate::trace::{Attempt, AttemptPosition, AttemptStatus, Rollout, RolloutStatus, Timestamp, Worker, WorkerStatus};
use std::time::Duration;

/// The status of a rollout, by its latest attempt.
pub fn status_from_attempt(attempt: &Attempt, rollout: &Rollout) -> RolloutStatus {
    match attempt.status {
        AttemptStatus::Preparing => RolloutStatus::Preparing,
        AttemptStatus::Running => RolloutStatus::Running,
        AttemptStatus::Succeeded => RolloutStatus::Succeeded,
        AttemptStatus::Failed | AttemptStatus::Timeout | AttemptStatus::Unresponsive => {
            let is_retried = rollout.config.retry_condition.contains(&attempt.status)
                && attempt.sequence_id < rollout.config.max_attempts;
            if is_retried { RolloutStatus::Requeuing } else { RolloutStatus::Failed }
        }
    }
}

/// True for a rollout that waits in the queue.
pub fn is_queued(status: RolloutStatus) -> bool {
    matches!(status, RolloutStatus::Queuing | RolloutStatus::Requeuing)
}

/// Sets the status of a rollout. Returns true if the rollout must be put into the queue now.
pub fn set_rollout_status(rollout: &mut Rollout, status: RolloutStatus, now: Timestamp) -> bool {
    rollout.status = status;
    rollout.end_time = status.is_final().then(|| rollout.end_time.unwrap_or(now));
    is_queued(status)
}

/// Updates a rollout after its latest attempt changed. Returns `None` if the rollout did not change, otherwise whether it
/// must be put into the queue now.
pub fn follow_attempt(rollout: &mut Rollout, attempt: &Attempt, now: Timestamp) -> Option<bool> {
    let status = status_from_attempt(attempt, rollout);
    let is_unchanged = rollout.status == status || rollout.status == RolloutStatus::Cancelled;
    (!is_unchanged).then(|| set_rollout_status(rollout, status, now))
}

/// Updates an attempt and its rollout after a span of the attempt was stored: the span is a heartbeat, and a sign that the
/// attempt runs.
pub fn on_span_stored(rollout: &mut Rollout, attempt: &mut Attempt, position: AttemptPosition, now: Timestamp) {
    attempt.last_heartbeat_time = Some(now);
    if matches!(attempt.status, AttemptStatus::Preparing | AttemptStatus::Unresponsive) {
        attempt.status = AttemptStatus::Running;
    }
    let is_waiting = matches!(rollout.status, RolloutStatus::Preparing | RolloutStatus::Requeuing);
    if position == AttemptPosition::Latest && is_waiting && attempt.status == AttemptStatus::Running {
        set_rollout_status(rollout, RolloutStatus::Running, now);
    }
}

/// Sets the status of an attempt as reported by its runner, or by a deadline.
pub fn set_attempt_status(attempt: &mut Attempt, status: AttemptStatus, now: Timestamp) {
    attempt.status = status;
    if matches!(status, AttemptStatus::Failed | AttemptStatus::Succeeded) {
        attempt.end_time = Some(now);
    }
}

/// The status of an attempt that has passed a deadline. The timeout is checked first: it is final.
pub fn overdue_status(rollout: &Rollout, attempt: &Attempt, now: Timestamp) -> Option<AttemptStatus> {
    let [timeout, unresponsive] = deadlines(rollout, attempt);
    let passed = |deadline: Option<Timestamp>| deadline.is_some_and(|due| now > due);
    match (passed(timeout), passed(unresponsive)) {
        (true, _) => Some(AttemptStatus::Timeout),
        (false, true) => Some(AttemptStatus::Unresponsive),
        (false, false) => None,
    }
}

/// When an attempt passes its first deadline if no span and no heartbeat arrives.
pub fn next_deadline(rollout: &Rollout, attempt: &Attempt) -> Option<Timestamp> {
    deadlines(rollout, attempt).into_iter().flatten().min()
}

/// By when an attempt must have ended, and by when it must have sent a span or a heartbeat; `None`: no such limit.
fn deadlines(rollout: &Rollout, attempt: &Attempt) -> [Option<Timestamp>; 2] {
    if !matches!(attempt.status, AttemptStatus::Preparing | AttemptStatus::Running) {
        return [None, None];
    }
    // A negative number, NaN or infinity is no limit.
    let after = |from: Timestamp, seconds: f64| Duration::try_from_secs_f64(seconds).ok().map(|by| from.after(by));
    let timeout = rollout.config.timeout_seconds.and_then(|seconds| after(attempt.start_time, seconds));
    let last = attempt.last_heartbeat_time.unwrap_or(attempt.start_time);
    let unresponsive = rollout.config.unresponsive_seconds.and_then(|seconds| after(last, seconds));
    [timeout, unresponsive]
}

/// Updates a worker after the status of its attempt changed.
pub fn follow_attempt_as_worker(worker: &mut Worker, attempt: &Attempt, now: Timestamp) {
    match attempt.status {
        AttemptStatus::Preparing | AttemptStatus::Running => {
            worker.status = WorkerStatus::Busy;
            worker.last_busy_time = Some(now);
            worker.current_rollout_id = Some(attempt.rollout_id.clone());
            worker.current_attempt_id = Some(attempt.attempt_id.clone());
            return;
        }
        AttemptStatus::Succeeded | AttemptStatus::Failed => worker.status = WorkerStatus::Idle,
        AttemptStatus::Timeout | AttemptStatus::Unresponsive => worker.status = WorkerStatus::Unknown,
    }
    worker.last_idle_time = Some(now);
    (worker.current_rollout_id, worker.current_attempt_id) = (None, None);
}

/// Updates a worker that asked for a rollout while the queue was empty.
pub fn on_empty_queue(worker: &mut Worker, now: Timestamp) {
    worker.last_dequeue_time = Some(now);
    if worker.status != WorkerStatus::Idle {
        worker.status = WorkerStatus::Idle;
        worker.last_idle_time = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::RolloutConfig;
    use AttemptStatus as A;
    use RolloutStatus as R;

    const NOW: Timestamp = Timestamp::from_unix_nanos(100_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn pair(rollout_status: R, attempt_status: A, config: RolloutConfig) -> (Rollout, Attempt) {
        let rollout = Rollout { status: rollout_status, config, ..Rollout::running("ro".into(), at(10)) };
        let attempt = Attempt { status: attempt_status, ..Attempt::running("ro".into(), "at".into(), at(20)) };
        (rollout, attempt)
    }

    fn retrying(on: &[A], max_attempts: u64) -> RolloutConfig {
        RolloutConfig { retry_condition: on.to_vec(), max_attempts, ..RolloutConfig::default() }
    }

    #[test]
    fn rollouts_follow_their_latest_attempt() {
        let once = RolloutConfig::default;
        for (before, attempt, config, after, queued) in [
            (R::Preparing, A::Running, once(), R::Running, Some(false)),
            (R::Running, A::Running, once(), R::Running, None),
            (R::Running, A::Succeeded, once(), R::Succeeded, Some(false)),
            (R::Running, A::Failed, once(), R::Failed, Some(false)),
            (R::Running, A::Timeout, retrying(&[A::Failed], 3), R::Failed, Some(false)),
            (R::Running, A::Timeout, retrying(&[A::Timeout], 3), R::Requeuing, Some(true)),
            (R::Running, A::Unresponsive, retrying(&[A::Unresponsive], 1), R::Failed, Some(false)),
            (R::Failed, A::Succeeded, once(), R::Succeeded, Some(false)),
            (R::Succeeded, A::Running, once(), R::Running, Some(false)),
            (R::Cancelled, A::Running, once(), R::Cancelled, None),
            (R::Cancelled, A::Succeeded, once(), R::Cancelled, None),
        ] {
            let (mut rollout, attempt) = pair(before, attempt, config);
            assert_eq!(follow_attempt(&mut rollout, &attempt, NOW), queued, "{before:?} {:?}", attempt.status);
            assert_eq!(rollout.status, after, "{before:?} {:?}", attempt.status);
            let ended = after.is_final() && before != after;
            assert!(!ended || rollout.end_time == Some(NOW));
            assert!(after.is_final() || rollout.end_time.is_none());
        }
    }

    #[test]
    fn spans_show_that_attempts_and_their_rollouts_run() {
        for (rollout, attempt, position, rollout_after, attempt_after) in [
            (R::Preparing, A::Preparing, AttemptPosition::Latest, R::Running, A::Running),
            (R::Preparing, A::Preparing, AttemptPosition::Earlier, R::Preparing, A::Running),
            (R::Requeuing, A::Unresponsive, AttemptPosition::Latest, R::Running, A::Running),
            (R::Requeuing, A::Timeout, AttemptPosition::Latest, R::Requeuing, A::Timeout),
            (R::Queuing, A::Unresponsive, AttemptPosition::Latest, R::Queuing, A::Running),
            (R::Failed, A::Unresponsive, AttemptPosition::Latest, R::Failed, A::Running),
            (R::Succeeded, A::Succeeded, AttemptPosition::Latest, R::Succeeded, A::Succeeded),
            (R::Cancelled, A::Running, AttemptPosition::Latest, R::Cancelled, A::Running),
        ] {
            let (mut of, mut attempt) = pair(rollout, attempt, RolloutConfig::default());
            on_span_stored(&mut of, &mut attempt, position, NOW);
            assert_eq!((of.status, attempt.status), (rollout_after, attempt_after), "{rollout:?}");
            assert_eq!(attempt.last_heartbeat_time, Some(NOW));
        }
    }

    #[test]
    fn unresponsive_attempts_are_distinguished_from_timeouts() {
        let limits = |timeout, unresponsive| RolloutConfig {
            timeout_seconds: timeout,
            unresponsive_seconds: unresponsive,
            ..RolloutConfig::default()
        };
        for (config, heartbeat, expected) in [
            (limits(None, None), None, None),
            (limits(Some(79.0), None), None, Some(A::Timeout)),
            (limits(Some(80.0), None), None, None),
            (limits(Some(81.0), Some(10.0)), Some(at(89)), Some(A::Unresponsive)),
            (limits(Some(79.0), Some(10.0)), Some(at(30)), Some(A::Timeout)),
            (limits(None, Some(10.0)), Some(at(95)), None),
            (limits(None, Some(10.0)), None, Some(A::Unresponsive)),
            (limits(Some(5.0), Some(5.0)), None, Some(A::Timeout)),
            (limits(Some(f64::NAN), Some(f64::INFINITY)), None, None),
        ] {
            let (rollout, attempt) = pair(R::Running, A::Running, config.clone());
            let attempt = Attempt { last_heartbeat_time: heartbeat, ..attempt };
            assert_eq!(overdue_status(&rollout, &attempt, NOW), expected, "{config:?}");
        }
        let (rollout, attempt) = pair(R::Failed, A::Failed, limits(Some(1.0), Some(1.0)));
        assert_eq!(overdue_status(&rollout, &attempt, NOW), None);
    }

    #[test]
    fn workers_follow_their_attempts() {
        let mut worker = Worker::new("w");
        for (status, expected, has_attempt) in [
            (A::Preparing, WorkerStatus::Busy, true),
            (A::Succeeded, WorkerStatus::Idle, false),
            (A::Running, WorkerStatus::Busy, true),
            (A::Timeout, WorkerStatus::Unknown, false),
        ] {
            let (_, attempt) = pair(R::Running, status, RolloutConfig::default());
            follow_attempt_as_worker(&mut worker, &attempt, NOW);
            assert_eq!((worker.status, worker.current_attempt_id.is_some()), (expected, has_attempt));
        }
        on_empty_queue(&mut worker, at(200));
        on_empty_queue(&mut worker, at(300));
        assert_eq!((worker.last_idle_time, worker.last_dequeue_time), (Some(at(200)), Some(at(300))));
    }
}
