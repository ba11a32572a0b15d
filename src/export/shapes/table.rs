//! The table of all shapes.

use super::shape::Shape;
use super::{
    agent_lightning, areal, messages, nemo_gym, preferences, prime_rl, rllm, skyrl, slime, tinker, trajectories, trl,
    verl,
};

/// Every shape, in the order in which the help text lists them.
pub(crate) const ALL: &[&dyn Shape] = &[
    &trajectories::Trajectories,
    &prime_rl::PrimeRl,
    &slime::Slime,
    &verl::Verl,
    &trl::Trl,
    &skyrl::SkyRl,
    &nemo_gym::NemoGym,
    &areal::Areal,
    &tinker::Tinker,
    &rllm::Rllm,
    &agent_lightning::Triplets03,
    &agent_lightning::Triplets10,
    &messages::Messages,
    &preferences::Preferences,
];

/// The shape with this name.
pub(crate) fn shape_named(name: &str) -> Option<&'static dyn Shape> {
    ALL.iter().copied().find(|shape| shape.name() == name)
}
