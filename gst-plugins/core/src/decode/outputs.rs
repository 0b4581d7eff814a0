//! One picture's part of the outputs, as `f32`.

use half::slice::HalfFloatSliceExt;

use super::{DecodeError, Output, OutputData, Picture};
use crate::model::ModelSpec;

/// One picture's part of one output.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub name: &'a str,
    /// Sizes without the batch.
    pub shape: &'a [usize],
    pub data: &'a [f32],
}

impl View<'_> {
    /// The error for a shape that does not fit.
    pub fn unexpected(&self, expected: impl Into<String>) -> DecodeError {
        DecodeError::Shape { name: self.name.into(), got: self.shape.to_vec(), expected: expected.into() }
    }
}

/// Finds outputs by name and converts what is not `f32`.
pub(super) struct Reader<'a> {
    pub spec: &'a ModelSpec,
    outputs: &'a [Output<'a>],
    picture: Picture,
    converted: &'a mut Vec<Vec<f32>>,
}

impl<'a> Reader<'a> {
    pub fn new(
        spec: &'a ModelSpec,
        outputs: &'a [Output<'a>],
        picture: Picture,
        converted: &'a mut Vec<Vec<f32>>,
    ) -> Self {
        Self { spec, outputs, picture, converted }
    }

    /// The first `N` outputs of the head, each with `rank` sizes per picture. With `batchless`, an output may
    /// lack the batch dimension (it then belongs to a batch of one).
    pub fn views<const N: usize>(
        &mut self,
        ranks: [usize; N],
        batchless: bool,
    ) -> Result<[View<'_>; N], DecodeError> {
        if self.converted.len() < N {
            self.converted.resize_with(N, Vec::new);
        }
        let mut views = [View { name: "", shape: &[], data: &[] }; N];
        for (at, (view, buffer)) in views.iter_mut().zip(self.converted.iter_mut()).enumerate() {
            let output = find(self.spec, self.outputs, at)?;
            *view = part(output, self.picture, ranks[at], batchless, buffer)?;
        }
        Ok(views)
    }

    /// The one output of single-output layouts.
    pub fn view(&mut self, rank: usize) -> Result<View<'_>, DecodeError> {
        self.views([rank], false).map(|[view]| view)
    }

    /// A whole output, all pictures of the batch together.
    pub fn whole(&mut self) -> Result<View<'_>, DecodeError> {
        if self.converted.is_empty() {
            self.converted.push(Vec::new());
        }
        let output = find(self.spec, self.outputs, 0)?;
        check(output)?;
        let data = floats(output.data, 0, output.data.len(), &mut self.converted[0]);
        Ok(View { name: output.name, shape: output.shape, data })
    }
}

fn find<'a>(spec: &ModelSpec, outputs: &'a [Output<'a>], at: usize) -> Result<&'a Output<'a>, DecodeError> {
    let name = spec.head.outputs.get(at).map_or("", String::as_str);
    outputs
        .iter()
        .find(|output| output.name == name)
        .ok_or_else(|| DecodeError::Missing { expected: format!("is named {name:?}") })
}

fn check(output: &Output<'_>) -> Result<usize, DecodeError> {
    let len = output.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    match len {
        Some(len) if len == output.data.len() => Ok(len),
        _ => Err(DecodeError::Shape {
            name: output.name.into(),
            got: output.shape.to_vec(),
            expected: format!("shape of {} elements", output.data.len()),
        }),
    }
}

fn part<'a>(
    output: &Output<'a>,
    picture: Picture,
    rank: usize,
    batchless: bool,
    buffer: &'a mut Vec<f32>,
) -> Result<View<'a>, DecodeError> {
    let len = check(output)?;
    let shape = output.shape;
    // More rows than pictures is fine: a fixed batch that was not full.
    if shape.len() == rank + 1 && picture.index < shape[0] && picture.batch <= shape[0] {
        let one = len / shape[0];
        let data = floats(output.data, picture.index * one, one, buffer);
        return Ok(View { name: output.name, shape: &shape[1..], data });
    }
    if batchless && shape.len() == rank && picture.batch == 1 && picture.index == 0 {
        return Ok(View { name: output.name, shape, data: floats(output.data, 0, len, buffer) });
    }
    Err(DecodeError::Shape {
        name: output.name.into(),
        got: shape.to_vec(),
        expected: format!("tensor of {} dimensions for {} pictures", rank + 1, picture.batch),
    })
}

fn floats<'a>(data: OutputData<'a>, start: usize, len: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
    let range = start..start + len;
    buffer.clear();
    match data {
        OutputData::F32(data) => return &data[range],
        OutputData::F16(data) => {
            buffer.resize(len, 0.0);
            data[range].convert_to_f32_slice(buffer);
        }
        OutputData::U8(data) => buffer.extend(data[range].iter().map(|v| *v as f32)),
        OutputData::I32(data) => buffer.extend(data[range].iter().map(|v| *v as f32)),
        OutputData::I64(data) => buffer.extend(data[range].iter().map(|v| *v as f32)),
    }
    buffer
}
