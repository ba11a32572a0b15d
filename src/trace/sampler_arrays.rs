//! The arrays that a sampler can return beside the ids of its tokens. They are large, and wanted only where a setting says so.

/// Which of the arrays are requested and recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SamplerArrays {
    /// The experts that each token was routed to, by layer: routing is replayed in training from them.
    pub routed_experts: bool,
    /// The ids that top-p and top-k left to sample each token from.
    pub sampling_masks: bool,
}

/// One of the arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerArray {
    /// See [`SamplerArrays::routed_experts`].
    RoutedExperts,
    /// See [`SamplerArrays::sampling_masks`].
    SamplingMask,
}

impl SamplerArrays {
    /// True if this array is among them.
    pub fn contains(self, array: SamplerArray) -> bool {
        match array {
            SamplerArray::RoutedExperts => self.routed_experts,
            SamplerArray::SamplingMask => self.sampling_masks,
        }
    }

    /// True if there are none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}
