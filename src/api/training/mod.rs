//! Training data of rollouts: trajectories, triplets, messages, rewards, verdicts, and exports of many rollouts.

mod annotations;
mod attempts;
mod difference;
mod handlers;
mod quality;
mod routes;
mod stream;

pub(super) use routes::routes;
