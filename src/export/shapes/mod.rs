//! The shapes in which trainers load samples: one file for each shape, one trait, one table. The names and types of fields are
//! the trainers'.
//!
//! A shape turns one attempt into JSON objects. Each becomes a line of the export. Some can also be a table. docs/exports.md describes the shapes.

mod agent_lightning;
mod areal;
mod messages;
mod nemo_gym;
mod preferences;
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

pub(crate) use shape::{Shape, encoded};
pub(crate) use table::{ALL, shape_named};
