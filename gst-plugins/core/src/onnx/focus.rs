//! The Focus stem of YOLOX and of YOLOv5 up to its fifth release: four strided slices of the picture, stacked as
//! channels, and a convolution over them. It is one convolution of the picture itself with a kernel and steps twice
//! as large, whose weights are the same numbers in another order (github.com/ultralytics/yolov5/issues/4825, where
//! that was found and YOLOv5 given up its Focus). The slices and the stack move the picture through memory and compute
//! nothing; the slices alone are 8 % of YOLOX-Nano in ONNX Runtime 1.31's own profile (`enable_profiling`, one thread).

use std::collections::HashSet;

use super::{
    graph::{Graph, Node, Tensor, text_of},
    proto::{attribute, element, graph, model, node, tensor},
    wire::{Malformed, fields, put_bytes, put_integer},
};

/// Channels of a picture, and kernels of a stem. In the middle of a network other things decide what is faster.
const MAX_CHANNELS: usize = 4;
const MAX_KERNEL: i64 = 8;

/// The model with its Focus stem as one convolution; `None` where there is none, or anything about it is unusual.
///
/// Inputs, outputs, metadata and everything else stay as they are. The outputs are the same but for the order in
/// which products are summed.
pub fn fold_focus(onnx: &[u8]) -> Option<Vec<u8>> {
    fold(onnx).ok().flatten()
}

fn fold(onnx: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut graphs = Vec::new();
    for field in fields(onnx) {
        let field = field?;
        if field.number == model::GRAPH {
            graphs.push(field.bytes()?);
        }
    }
    // More than one would have to be merged first.
    let &[message] = &graphs[..] else { return Ok(None) };
    let Some(parsed) = Graph::parse(message)? else { return Ok(None) };
    let Some(stem) = (0..parsed.nodes.len()).find_map(|index| Stem::at(&parsed, index)) else {
        return Ok(None);
    };
    let folded = stem.rewrite(&parsed, message)?;
    let mut out = Vec::with_capacity(onnx.len());
    for field in fields(onnx) {
        let field = field?;
        if field.number == model::GRAPH {
            put_bytes(model::GRAPH, &folded, &mut out);
        } else {
            out.extend_from_slice(field.whole);
        }
    }
    Ok(Some(out))
}

/// A stem that was found.
struct Stem<'a> {
    /// The convolution's place among the nodes.
    convolution: usize,
    /// The slices and the stack.
    superfluous: HashSet<usize>,
    /// What the slices are taken from.
    picture: &'a str,
    weights: Tensor<'a>,
    /// For each quarter of the channels the row and the column, 0 or 1, that it takes of every two.
    quarters: [(usize, usize); 4],
}

impl<'a> Stem<'a> {
    fn at(graph: &Graph<'a>, index: usize) -> Option<Self> {
        let convolution = &graph.nodes[index];
        let &[stacked, weights, ..] = &convolution.inputs[..] else { return None };
        if convolution.operator != "Conv" || !is_plain(convolution) || graph.uses(weights) != 1 {
            return None;
        }
        let (stack, concat) = graph.producer(stacked)?;
        let axis = concat.integers("axis")?;
        if concat.operator != "Concat" || concat.inputs.len() != 4 || !matches!(axis, [1 | -3]) {
            return None;
        }
        let mut superfluous = HashSet::from([stack]);
        let mut quarters = [(0, 0); 4];
        let mut picture = None;
        for (quarter, &input) in quarters.iter_mut().zip(&concat.inputs) {
            let (from, offsets) = slices(graph, input, &mut superfluous)?;
            *quarter = offsets;
            if *picture.get_or_insert(from) != from {
                return None;
            }
        }
        if quarters.iter().collect::<HashSet<_>>().len() != 4 {
            return None;
        }
        // Nothing else may look at what is about to vanish.
        let inside = |value: &str| {
            let inputs = superfluous.iter().flat_map(|&index| &graph.nodes[index].inputs).chain([&stacked]);
            inputs.filter(|&&input| input == value).count()
        };
        let mut outputs = superfluous.iter().flat_map(|&index| &graph.nodes[index].outputs);
        if outputs.any(|output| graph.uses(output) != inside(output)) {
            return None;
        }
        let weights = Tensor::parse(graph.initializers.get(weights)?).ok()?;
        let stem = Self { convolution: index, superfluous, picture: picture?, weights, quarters };
        stem.layout(convolution).is_some().then_some(stem)
    }

    /// Filters, channels of the picture, kernel height and width, bytes of an element; `None` for weights that are
    /// not what the convolution and four quarters need.
    fn layout(&self, convolution: &Node<'_>) -> Option<[usize; 5]> {
        let &[filters, stacked, height, width] = &self.weights.dims[..] else { return None };
        let size = match self.weights.element {
            element::FLOAT => 4,
            element::FLOAT16 | element::BFLOAT16 => 2,
            _ => return None,
        };
        let kernel = convolution.integers("kernel_shape").unwrap_or(&self.weights.dims[2..]);
        if kernel != [height, width] || !kernel.iter().all(|side| (1..=MAX_KERNEL).contains(side)) {
            return None;
        }
        let filters = usize::try_from(filters).ok()?;
        let stacked = usize::try_from(stacked).ok()?;
        let (height, width) = (height as usize, width as usize);
        if stacked % 4 != 0 || !(1..=MAX_CHANNELS).contains(&(stacked / 4)) {
            return None;
        }
        let bytes = filters.checked_mul(stacked * height * width * size)?;
        (self.weights.raw()?.len() == bytes).then_some([filters, stacked / 4, height, width, size])
    }

    /// The same numbers, for a kernel of twice the height and width over a quarter of the channels.
    fn weights(&self, [_, channels, height, width, size]: [usize; 5], from: &[u8]) -> Vec<u8> {
        let mut to = vec![0; from.len()];
        for (index, value) in from.chunks_exact(size).enumerate() {
            // As the file has them: filters, quarters, channels, rows, columns.
            let (x, index) = (index % width, index / width);
            let (y, index) = (index % height, index / height);
            let (channel, index) = (index % channels, index / channels);
            let ((row, column), filter) = (self.quarters[index % 4], index / 4);
            let line = (filter * channels + channel) * height * 2 + y * 2 + row;
            let at = (line * width * 2 + x * 2 + column) * size;
            to[at..at + size].copy_from_slice(value);
        }
        to
    }

    fn rewrite(&self, parsed: &Graph<'_>, message: &[u8]) -> Result<Vec<u8>, Malformed> {
        let convolution = &parsed.nodes[self.convolution];
        let layout = self.layout(convolution).ok_or(Malformed)?;
        let raw = self.weights.raw().ok_or(Malformed)?;
        let unused = self.unused(parsed);
        let mut out = Vec::with_capacity(message.len());
        let mut index = 0;
        for field in fields(message) {
            let field = field?;
            match field.number {
                graph::NODE => {
                    let node = &parsed.nodes[index];
                    let constant = node.operator == "Constant"
                        && node.outputs.iter().all(|output| unused.contains(output));
                    if index == self.convolution {
                        put_bytes(graph::NODE, &self.convolve(convolution, layout)?, &mut out);
                    } else if !self.superfluous.contains(&index) && !constant {
                        out.extend_from_slice(field.whole);
                    }
                    index += 1;
                }
                graph::INITIALIZER => {
                    let name = text_of(field.bytes()?, tensor::NAME)?;
                    if name == self.weights.name {
                        put_bytes(graph::INITIALIZER, &self.initializer(layout, raw), &mut out);
                    } else if !unused.contains(name) {
                        out.extend_from_slice(field.whole);
                    }
                }
                _ => out.extend_from_slice(field.whole),
            }
        }
        Ok(out)
    }

    /// Constants that only the superfluous nodes took: ONNX Runtime warns of each.
    fn unused<'g>(&self, graph: &Graph<'g>) -> HashSet<&'g str> {
        let taken = || self.superfluous.iter().flat_map(|&index| &graph.nodes[index].inputs);
        let is_last = |value: &str| taken().filter(|&&input| input == value).count() == graph.uses(value);
        taken().copied().filter(|&value| value != self.picture && is_last(value)).collect()
    }

    /// The convolution's message, over the picture.
    fn convolve(
        &self,
        convolution: &Node<'_>,
        [_, _, height, width, _]: [usize; 5],
    ) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity(convolution.message.len() + 64);
        let mut inputs = 0;
        for field in fields(convolution.message) {
            let field = field?;
            match field.number {
                node::INPUT => {
                    inputs += 1;
                    let input = if inputs == 1 { self.picture.as_bytes() } else { field.bytes()? };
                    put_bytes(node::INPUT, input, &mut out);
                }
                node::ATTRIBUTE => {
                    let name = text_of(field.bytes()?, attribute::NAME)?;
                    if !matches!(name, "kernel_shape" | "strides" | "pads") {
                        out.extend_from_slice(field.whole);
                    }
                }
                _ => out.extend_from_slice(field.whole),
            }
        }
        let doubled = |name, default: &[i64]| -> Vec<i64> {
            convolution.integers(name).unwrap_or(default).iter().map(|value| value * 2).collect()
        };
        put_integers("kernel_shape", &[height as i64 * 2, width as i64 * 2], &mut out);
        put_integers("strides", &doubled("strides", &[1, 1]), &mut out);
        put_integers("pads", &doubled("pads", &[0; 4]), &mut out);
        Ok(out)
    }

    fn initializer(&self, layout: [usize; 5], raw: &[u8]) -> Vec<u8> {
        let [filters, channels, height, width, _] = layout;
        let mut out = Vec::with_capacity(raw.len() + 64);
        for side in [filters, channels, height * 2, width * 2] {
            put_integer(tensor::DIMS, side as i64, &mut out);
        }
        put_integer(tensor::ELEMENT, self.weights.element, &mut out);
        put_bytes(tensor::NAME, self.weights.name.as_bytes(), &mut out);
        put_bytes(tensor::RAW, &self.weights(layout, raw), &mut out);
        out
    }
}

fn put_integers(name: &str, values: &[i64], to: &mut Vec<u8>) {
    let mut message = Vec::new();
    put_bytes(attribute::NAME, name.as_bytes(), &mut message);
    for &value in values {
        put_integer(attribute::INTEGERS, value, &mut message);
    }
    put_integer(attribute::TYPE, attribute::TYPE_INTEGERS, &mut message);
    put_bytes(node::ATTRIBUTE, &message, to);
}

/// One group, nothing dilated, padding and steps in numbers that can be doubled.
fn is_plain(convolution: &Node<'_>) -> bool {
    let small = |values: &[i64], least| values.iter().all(|value| (least..=MAX_KERNEL).contains(value));
    let integers = |name| convolution.integers(name);
    convolution.attributes.get("auto_pad").is_none_or(|pad| matches!(pad.string, Some(b"NOTSET" | b"")))
        && integers("group").is_none_or(|group| group == [1])
        && integers("dilations").is_none_or(|dilations| dilations == [1, 1])
        && integers("strides").is_none_or(|strides| strides.len() == 2 && small(strides, 1))
        && integers("pads").is_none_or(|pads| pads.len() == 4 && small(pads, 0))
}

/// Follows slices that together take every second row and every second column, up to what they are taken from.
fn slices<'a>(
    graph: &Graph<'a>,
    mut value: &'a str,
    seen: &mut HashSet<usize>,
) -> Option<(&'a str, (usize, usize))> {
    let (mut row, mut column) = (None, None);
    while row.is_none() || column.is_none() {
        let (index, node) = graph.producer(value)?;
        let &[from, starts, ends, axes, steps] = &node.inputs[..] else { return None };
        if node.operator != "Slice" {
            return None;
        }
        let constants = [starts, ends, axes, steps].map(|name| graph.constant(name));
        let [Some(starts), Some(ends), Some(axes), Some(steps)] = constants else { return None };
        if [&ends, &axes, &steps].iter().any(|list| list.len() != starts.len()) || starts.is_empty() {
            return None;
        }
        for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let offset = match axis {
                2 | -2 => &mut row,
                3 | -1 => &mut column,
                _ => return None,
            };
            // To the end, as exporters write it.
            if step != 2 || !(0..2).contains(&start) || end < i64::from(i32::MAX) || offset.is_some() {
                return None;
            }
            *offset = Some(start as usize);
        }
        seen.insert(index);
        value = from;
    }
    Some((value, (row?, column?)))
}
