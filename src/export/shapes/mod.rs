//! The shapes in which trainers load samples: one file a shape, one trait, one table. Names and types are the trainers'.
//!
//! Each shape turns one attempt into JSON objects, which become lines. docs/exports.md describes them.

mod agent_lightning;
mod areal;
mod messages;
mod nemo_gym;
mod prime_rl;
mod rllm;
mod shape;
mod skyrl;
mod slime;
mod table;
mod tinker;
mod trajectories;
mod trl;
mod verl;

pub(crate) use shape::Shape;
pub(crate) use table::{ALL, shape_named};
