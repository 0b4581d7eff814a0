use proptest::prelude::*;

use super::{
    fold_focus,
    graph::{Graph, Tensor},
    proto::{attribute, graph, model, node, tensor},
    wire::{Malformed, Value, fields, put_bytes, put_integer},
};

/// A model in the making.
#[derive(Clone, Debug)]
struct Stem {
    channels: usize,
    filters: usize,
    kernel: usize,
    stride: i64,
    pad: i64,
    /// Row and column of each quarter, in the order of the stack.
    quarters: [(i64, i64); 4],
    weights: Vec<f32>,
    /// Rows and columns in one slice each.
    both_at_once: bool,
    /// Slices' numbers from nodes, not initializers.
    constant_nodes: bool,
    step: i64,
    end: i64,
    axis: i64,
    convolution: Vec<(&'static str, Vec<i64>)>,
    bias: &'static str,
    /// Further inputs and outputs of the graph, for values that others look at.
    inputs: Vec<&'static str>,
    outputs: Vec<&'static str>,
}

impl Stem {
    /// What PyTorch exports of `YOLOX`.
    fn yolox() -> Self {
        let (channels, filters, kernel) = (3, 2, 3);
        let count = filters * channels * 4 * kernel * kernel;
        Self {
            channels,
            filters,
            kernel,
            stride: 1,
            pad: 1,
            quarters: [(0, 0), (1, 0), (0, 1), (1, 1)],
            weights: (0..count).map(|i| (i as f32 * 0.37).sin()).collect(),
            both_at_once: false,
            constant_nodes: false,
            step: 2,
            end: i64::MAX,
            axis: 1,
            convolution: Vec::new(),
            bias: "bias",
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn file(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let numbers =
            [("zero", 0), ("one", 1), ("two", 2), ("three", 3), ("step", self.step), ("end", self.end)];
        for (name, value) in numbers {
            put_numbers(name, &[value], self.constant_nodes, &mut parts);
        }
        let offset = |value: i64| if value == 0 { "zero" } else { "one" };
        let mut stacked = Vec::new();
        for (number, (row, column)) in self.quarters.into_iter().enumerate() {
            let (half, quarter) = (format!("half{number}"), format!("quarter{number}"));
            if self.both_at_once {
                let starts = format!("starts{number}");
                put_numbers(&starts, &[row, column], self.constant_nodes, &mut parts);
                for (name, values) in [("ends", [self.end; 2]), ("axes", [-2, -1]), ("steps", [self.step; 2])]
                {
                    put_numbers(&format!("{name}{number}"), &values, self.constant_nodes, &mut parts);
                }
                let names = ["ends", "axes", "steps"].map(|name| format!("{name}{number}"));
                let inputs = ["picture", &starts, &names[0], &names[1], &names[2]];
                put_node("Slice", &inputs, &quarter, &[], &mut parts);
            } else {
                put_node("Slice", &["picture", offset(row), "end", "two", "step"], &half, &[], &mut parts);
                put_node(
                    "Slice",
                    &[&half, offset(column), "end", "three", "step"],
                    &quarter,
                    &[],
                    &mut parts,
                );
            }
            stacked.push(quarter);
        }
        let stacked: Vec<_> = stacked.iter().map(String::as_str).collect();
        put_node("Concat", &stacked, "stack", &[("axis", vec![self.axis])], &mut parts);
        let mut attributes = vec![
            ("kernel_shape", vec![self.kernel as i64; 2]),
            ("strides", vec![self.stride; 2]),
            ("pads", vec![self.pad; 4]),
        ];
        attributes.retain(|(name, _)| self.convolution.iter().all(|(other, _)| name != other));
        attributes.extend(self.convolution.iter().cloned());
        put_node("Conv", &["stack", "weights", self.bias], "features", &attributes, &mut parts);
        put_node("Relu", &["features"], "result", &[], &mut parts);
        let dims = [self.filters, self.channels * 4, self.kernel, self.kernel];
        let raw: Vec<_> = self.weights.iter().flat_map(|value| value.to_le_bytes()).collect();
        put_tensor("weights", &dims.map(|side| side as i64), 1, &raw, graph::INITIALIZER, &mut parts);
        put_tensor(
            "bias",
            &[self.filters as i64],
            1,
            &vec![0; self.filters * 4],
            graph::INITIALIZER,
            &mut parts,
        );
        for (number, names) in [
            (graph::INPUT, [&["picture"], &self.inputs[..]]),
            (graph::OUTPUT, [&["result"], &self.outputs[..]]),
        ] {
            for name in names.concat() {
                let mut message = Vec::new();
                put_bytes(1, name.as_bytes(), &mut message);
                put_bytes(number, &message, &mut parts);
            }
        }
        let mut file = Vec::new();
        put_integer(1, 7, &mut file);
        put_bytes(2, b"a test", &mut file);
        put_bytes(model::GRAPH, &parts, &mut file);
        put_bytes(14, b"metadata stay", &mut file);
        file
    }
}

fn put_numbers(name: &str, values: &[i64], as_node: bool, to: &mut Vec<u8>) {
    let raw: Vec<_> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    if !as_node {
        put_tensor(name, &[values.len() as i64], 7, &raw, graph::INITIALIZER, to);
        return;
    }
    let (mut value, mut node_message) = (Vec::new(), Vec::new());
    put_bytes(attribute::NAME, b"value", &mut value);
    put_tensor("", &[values.len() as i64], 7, &raw, attribute::TENSOR, &mut value);
    put_bytes(node::OUTPUT, name.as_bytes(), &mut node_message);
    put_bytes(node::OPERATOR, b"Constant", &mut node_message);
    put_bytes(node::ATTRIBUTE, &value, &mut node_message);
    put_bytes(graph::NODE, &node_message, to);
}

fn put_tensor(name: &str, dims: &[i64], element: i64, raw: &[u8], number: u32, to: &mut Vec<u8>) {
    let mut message = Vec::new();
    for &side in dims {
        put_integer(tensor::DIMS, side, &mut message);
    }
    put_integer(tensor::ELEMENT, element, &mut message);
    put_bytes(tensor::NAME, name.as_bytes(), &mut message);
    put_bytes(tensor::RAW, raw, &mut message);
    put_bytes(number, &message, to);
}

fn put_node(
    operator: &str,
    inputs: &[&str],
    output: &str,
    attributes: &[(&str, Vec<i64>)],
    to: &mut Vec<u8>,
) {
    let mut message = Vec::new();
    for input in inputs {
        put_bytes(node::INPUT, input.as_bytes(), &mut message);
    }
    put_bytes(node::OUTPUT, output.as_bytes(), &mut message);
    put_bytes(node::OPERATOR, operator.as_bytes(), &mut message);
    for (name, values) in attributes {
        let mut attribute = Vec::new();
        put_bytes(attribute::NAME, name.as_bytes(), &mut attribute);
        if *name == "auto_pad" {
            put_bytes(attribute::STRING, b"SAME_UPPER", &mut attribute);
        } else if *name == "body" {
            put_bytes(attribute::GRAPH, b"", &mut attribute);
        } else if let ("axis" | "group", &[value]) = (*name, &values[..]) {
            put_integer(attribute::INTEGER, value, &mut attribute);
        } else {
            for &value in values {
                put_integer(attribute::INTEGERS, value, &mut attribute);
            }
        }
        put_bytes(node::ATTRIBUTE, &attribute, &mut message);
    }
    put_bytes(graph::NODE, &message, to);
}

fn graph_of(file: &[u8]) -> &[u8] {
    fields(file).map(Result::unwrap).find(|field| field.number == model::GRAPH).unwrap().bytes().unwrap()
}

/// A picture, channel after channel, and its sides.
struct Picture {
    data: Vec<f32>,
    channels: usize,
    height: usize,
    width: usize,
}

impl Picture {
    fn at(&self, channel: usize, y: i64, x: i64) -> f32 {
        let inside = (0..self.height as i64).contains(&y) && (0..self.width as i64).contains(&x);
        if inside { self.data[(channel * self.height + y as usize) * self.width + x as usize] } else { 0.0 }
    }

    fn focus(&self, quarters: [(i64, i64); 4]) -> Self {
        let (height, width) = (self.height / 2, self.width / 2);
        let mut data = Vec::new();
        for (row, column) in quarters {
            for channel in 0..self.channels {
                for y in 0..height as i64 {
                    data.extend((0..width as i64).map(|x| self.at(channel, y * 2 + row, x * 2 + column)));
                }
            }
        }
        Self { data, channels: self.channels * 4, height, width }
    }

    fn convolved(&self, weights: &[f32], filters: usize, kernel: usize, stride: i64, pad: i64) -> Vec<f32> {
        let side = |length: usize| (length as i64 + 2 * pad - kernel as i64) / stride + 1;
        let mut out = Vec::new();
        for filter in 0..filters {
            for y in 0..side(self.height) {
                for x in 0..side(self.width) {
                    let mut sum = 0.0;
                    for channel in 0..self.channels {
                        for ky in 0..kernel {
                            for kx in 0..kernel {
                                let weight =
                                    weights[((filter * self.channels + channel) * kernel + ky) * kernel + kx];
                                let (y, x) = (y * stride - pad + ky as i64, x * stride - pad + kx as i64);
                                sum += weight * self.at(channel, y, x);
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }
}

#[test]
fn the_stem_of_yolox_becomes_one_convolution() {
    let file = Stem::yolox().file();
    let folded = fold_focus(&file).unwrap();
    let numbers = |file: &[u8]| fields(file).map(|field| field.unwrap().number).collect::<Vec<_>>();
    assert_eq!(numbers(&folded), numbers(&file));
    let graph = Graph::parse(graph_of(&folded)).unwrap().unwrap();
    let operators: Vec<_> = graph.nodes.iter().map(|node| node.operator).collect();
    assert_eq!(operators, ["Conv", "Relu"]);
    let convolution = &graph.nodes[0];
    assert_eq!(convolution.inputs, ["picture", "weights", "bias"]);
    assert_eq!(convolution.outputs, ["features"]);
    assert_eq!(convolution.integers("kernel_shape"), Some(&[6, 6][..]));
    assert_eq!(convolution.integers("strides"), Some(&[2, 2][..]));
    assert_eq!(convolution.integers("pads"), Some(&[2, 2, 2, 2][..]));
    let mut initializers: Vec<_> = graph.initializers.keys().copied().collect();
    initializers.sort_unstable();
    assert_eq!(initializers, ["bias", "weights"]);
    assert_eq!(Tensor::parse(graph.initializers["weights"]).unwrap().dims, [2, 3, 6, 6]);
    // There is nothing left to fold.
    assert_eq!(fold_focus(&folded), None);
}

#[test]
fn what_others_use_stays() {
    let mut file = Stem::yolox();
    file.outputs = vec!["zero"];
    let folded = fold_focus(&file.file()).unwrap();
    let graph = Graph::parse(graph_of(&folded)).unwrap().unwrap();
    assert!(graph.initializers.contains_key("zero"));
    assert!(!graph.initializers.contains_key("one"));
}

#[test]
fn what_is_not_a_focus_stem_is_left_alone() {
    let with = |change: fn(&mut Stem)| {
        let mut stem = Stem::yolox();
        change(&mut stem);
        stem.file()
    };
    let cases = [
        ("a quarter twice", with(|stem| stem.quarters[3] = (0, 1))),
        ("every third row", with(|stem| stem.step = 3)),
        ("a part of the picture", with(|stem| stem.end = 100)),
        ("stacked along the rows", with(|stem| stem.axis = 2)),
        ("in groups", with(|stem| stem.convolution.push(("group", vec![2])))),
        ("dilated", with(|stem| stem.convolution.push(("dilations", vec![2, 2])))),
        ("padded by name", with(|stem| stem.convolution.push(("auto_pad", Vec::new())))),
        ("a kernel of another size", with(|stem| stem.convolution.push(("kernel_shape", vec![5, 5])))),
        ("pads that are too few", with(|stem| stem.convolution.push(("pads", vec![1, 1])))),
        ("negative pads", with(|stem| stem.pad = -1)),
        ("huge strides", with(|stem| stem.stride = i64::MAX)),
        ("an inner graph", with(|stem| stem.convolution.push(("body", Vec::new())))),
        ("weights that are an input", with(|stem| stem.inputs.push("weights"))),
        ("the stack is an output", with(|stem| stem.outputs.push("stack"))),
        ("a slice is an output", with(|stem| stem.outputs.push("half2"))),
        ("the stack is also the bias", with(|stem| stem.bias = "stack")),
        ("a slice is the bias", with(|stem| stem.bias = "quarter1")),
        ("weights are missing", with(|stem| stem.weights.truncate(200))),
        (
            "features of a network",
            with(|stem| {
                stem.channels = 16;
                stem.weights = vec![0.0; 16 * 4 * 2 * 9];
            }),
        ),
        ("two graphs", with(|_| ()).repeat(2)),
        ("nothing", Vec::new()),
    ];
    for (name, file) in cases {
        assert_eq!(fold_focus(&file), None, "{name}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_left_alone() {
    let file = Stem::yolox().file();
    // All that comes after the graph may be missing.
    let end = file.len() - b"metadata stay".len() - 2;
    for length in 0..end {
        assert_eq!(fold_focus(&file[..length]), None, "{length} bytes");
    }
    assert!(fold_focus(&file[..end]).is_some());
}

#[test]
fn fields_are_read_as_protobuf_says() {
    // From protobuf.dev/programming-guides/encoding: 150 as field 1, "testing" as field 2.
    let message = [0x08, 0x96, 0x01, 0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g'];
    let read: Vec<_> = fields(&message).map(Result::unwrap).collect();
    assert_eq!(read.len(), 2);
    assert_eq!((read[0].number, read[0].value, read[0].whole), (1, Value::Varint(150), &message[..3]));
    assert_eq!((read[1].number, read[1].text()), (2, Ok("testing")));
    // The same guide's packed numbers.
    let packed = [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05];
    let mut numbers = Vec::new();
    fields(&packed).for_each(|field| field.unwrap().integers(&mut numbers).unwrap());
    assert_eq!(numbers, [3, 270, 86942]);
    let mut negative = Vec::new();
    put_integer(3, -2, &mut negative);
    let mut numbers = Vec::new();
    fields(&negative).for_each(|field| field.unwrap().integers(&mut numbers).unwrap());
    assert_eq!(numbers, [-2]);
    let broken: [&[u8]; 6] = [
        &[0x08],                                                              // no value
        &[0x12, 0x05, b'a'],                                                  // fewer bytes than it says
        &[0x0b],                                                              // a group
        &[0x00, 0x01],                                                        // field 0
        &[0x09, 0, 0, 0],                                                     // half of eight bytes
        &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x01], // a number without end
    ];
    for message in broken {
        assert_eq!(fields(message).last().map(Result::err), Some(Some(Malformed)), "{message:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_folded_convolution_gives_the_same_features(
        (channels, filters, kernel) in (1usize..=4, 1usize..4, 1usize..=5),
        (stride, pad) in (1i64..=2, 0i64..=2),
        order in Just([(0, 0), (1, 0), (0, 1), (1, 1)]).prop_shuffle(),
        (both_at_once, constant_nodes) in any::<(bool, bool)>(),
        (height, width) in (5usize..8, 5usize..8),
        seed in 0u32..1000,
    ) {
        let numbers = |count: usize, seed: f32| (0..count).map(|i| ((i as f32 + seed) * 12.9898).sin()).collect::<Vec<_>>();
        let stem = Stem {
            channels, filters, kernel, stride, pad, quarters: order, both_at_once, constant_nodes,
            weights: numbers(filters * channels * 4 * kernel * kernel, seed as f32),
            ..Stem::yolox()
        };
        let folded = fold_focus(&stem.file()).unwrap();
        let graph = Graph::parse(graph_of(&folded)).unwrap().unwrap();
        let raw = Tensor::parse(graph.initializers["weights"]).unwrap().raw().unwrap();
        let weights: Vec<_> = raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let (height, width) = (height * 2, width * 2);
        let picture = Picture { data: numbers(channels * height * width, 0.5), channels, height, width };
        let expected = picture.focus(order).convolved(&stem.weights, filters, kernel, stride, pad);
        let found = picture.convolved(&weights, filters, kernel * 2, stride * 2, pad * 2);
        prop_assert_eq!(expected.len(), found.len());
        for (a, b) in expected.iter().zip(&found) {
            prop_assert!((a - b).abs() < 1e-4, "{} {}", a, b);
        }
    }

    #[test]
    fn hostile_files_do_no_harm(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut file = Stem::yolox().file();
        for (at, byte) in flips {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(folded) = fold_focus(&file) {
            prop_assert!(folded.len() <= file.len() + 100);
        }
        fold_focus(&noise);
    }
}
