//! Agent Lightning's API (1.0) under `/api`: its unmodified controllers, trainers and agents work with this URL.
//!
//! A rollout is the same rollout as in the other APIs. Fields that only this API has are stored in the rollout's metadata.

mod event_list;
mod events;
mod model;
mod query;
mod rollouts;
mod routes;
mod status;

pub(super) use routes::routes;
