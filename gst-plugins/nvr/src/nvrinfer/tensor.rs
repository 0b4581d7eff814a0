//! Memory for input tensors, reused from frame to frame.

use half::f16;
use nvr_core::preprocess::{ElementType, InputSpec, TensorMut};

/// One or several pictures' input, in the type that the model takes.
#[derive(Debug)]
pub enum TensorBuf {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

impl TensorBuf {
    /// Zeroed, for `pictures` pictures.
    pub fn new(spec: &InputSpec, pictures: usize) -> Self {
        let len = spec.len() * pictures;
        match spec.element {
            ElementType::F32 => Self::F32(vec![0.0; len]),
            ElementType::F16 => Self::F16(vec![f16::ZERO; len]),
            ElementType::U8 => Self::U8(vec![0; len]),
            ElementType::I8 => Self::I8(vec![0; len]),
        }
    }

    /// All of it, to be written.
    pub fn as_mut(&mut self) -> TensorMut<'_> {
        match self {
            Self::F32(data) => TensorMut::F32(data),
            Self::F16(data) => TensorMut::F16(data),
            Self::U8(data) => TensorMut::U8(data),
            Self::I8(data) => TensorMut::I8(data),
        }
    }

    /// Copies one picture to place `index` of a batch. Both are made for the same model.
    pub fn copy_to(&self, batch: &mut Self, index: usize) {
        fn copy<T: Copy>(from: &[T], to: &mut [T], index: usize) {
            if let Some(place) = to.chunks_exact_mut(from.len().max(1)).nth(index) {
                place.copy_from_slice(from);
            }
        }
        match (self, batch) {
            (Self::F32(from), Self::F32(to)) => copy(from, to, index),
            (Self::F16(from), Self::F16(to)) => copy(from, to, index),
            (Self::U8(from), Self::U8(to)) => copy(from, to, index),
            (Self::I8(from), Self::I8(to)) => copy(from, to, index),
            _ => {}
        }
    }
}
