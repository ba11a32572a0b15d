//! Training data of rollouts: trajectories, triplets, messages, rewards, verdicts, and exports of many rollouts.

mod handlers;
mod routes;
mod stream;

pub(super) use routes::routes;
