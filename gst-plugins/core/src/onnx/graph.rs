//! What a graph consists of, borrowed from the file.

use std::collections::HashMap;

use super::{
    proto::{attribute, element, graph, node, tensor},
    wire::{Field, Malformed, fields},
};

/// The name of a tensor, of an input, of an output: all are field 1 but for an initializer's.
const VALUE_NAME: u32 = 1;
/// A file may name one constant many times; a long one would then be read for ever.
const MAX_CONSTANT_BYTES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub operator: &'a str,
    pub attributes: HashMap<&'a str, Attribute<'a>>,
    pub message: &'a [u8],
}

#[derive(Debug, Default)]
pub(super) struct Attribute<'a> {
    pub integers: Vec<i64>,
    pub string: Option<&'a [u8]>,
    pub tensor: Option<&'a [u8]>,
    pub has_graph: bool,
}

impl<'a> Node<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut this = Self { message, ..Self::default() };
        let mut domain = "";
        for field in fields(message) {
            let field = field?;
            match field.number {
                node::INPUT => this.inputs.push(field.text()?),
                node::OUTPUT => this.outputs.push(field.text()?),
                node::OPERATOR => this.operator = field.text()?,
                node::DOMAIN => domain = field.text()?,
                node::ATTRIBUTE => {
                    let (name, attribute) = Attribute::parse(field.bytes()?)?;
                    this.attributes.insert(name, attribute);
                }
                _ => {}
            }
        }
        // Another domain's Conv is another operator.
        if !matches!(domain, "" | "ai.onnx") {
            this.operator = "";
        }
        Ok(this)
    }

    pub fn integers(&self, attribute: &str) -> Option<&[i64]> {
        self.attributes.get(attribute).map(|attribute| &attribute.integers[..])
    }
}

impl<'a> Attribute<'a> {
    fn parse(message: &'a [u8]) -> Result<(&'a str, Self), Malformed> {
        let (mut name, mut this) = ("", Self::default());
        for field in fields(message) {
            let field = field?;
            match field.number {
                attribute::NAME => name = field.text()?,
                attribute::INTEGER | attribute::INTEGERS => field.integers(&mut this.integers)?,
                attribute::STRING => this.string = Some(field.bytes()?),
                attribute::TENSOR => this.tensor = Some(field.bytes()?),
                attribute::GRAPH | attribute::GRAPHS => this.has_graph = true,
                _ => {}
            }
        }
        Ok((name, this))
    }
}

#[derive(Debug, Default)]
pub(super) struct Tensor<'a> {
    pub name: &'a str,
    pub dims: Vec<i64>,
    pub element: i64,
    integers: Vec<i64>,
    /// Elements in the file's byte order, which is little-endian.
    raw: Option<&'a [u8]>,
    is_external: bool,
}

impl<'a> Tensor<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut this = Self::default();
        for field in fields(message) {
            let field = field?;
            match field.number {
                tensor::DIMS => field.integers(&mut this.dims)?,
                tensor::ELEMENT => this.element = one_integer(&field)?,
                tensor::INT32S | tensor::INT64S => field.integers(&mut this.integers)?,
                tensor::NAME => this.name = field.text()?,
                // Packed floats lie as raw ones do.
                tensor::RAW | tensor::FLOATS => match this.raw {
                    None => this.raw = Some(field.bytes()?),
                    Some(_) => return Err(Malformed),
                },
                tensor::LOCATION => this.is_external = one_integer(&field)? != 0,
                _ => {}
            }
        }
        Ok(this)
    }

    /// The elements, where the file itself holds them as bytes.
    pub fn raw(&self) -> Option<&'a [u8]> {
        self.raw.filter(|_| !self.is_external)
    }

    /// The elements of a tensor of integers.
    pub fn integers(&self) -> Option<Vec<i64>> {
        if self.is_external {
            return None;
        }
        match (self.raw, self.element) {
            (None, element::INT32 | element::INT64) => Some(self.integers.clone()),
            (Some(raw), element::INT64) => {
                let (whole, rest) = raw.as_chunks();
                rest.is_empty().then(|| whole.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
            }
            (Some(raw), element::INT32) => {
                let (whole, rest) = raw.as_chunks();
                rest.is_empty().then(|| whole.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect())
            }
            _ => None,
        }
    }
}

fn one_integer(field: &Field<'_>) -> Result<i64, Malformed> {
    let mut integers = Vec::new();
    field.integers(&mut integers)?;
    integers.pop().ok_or(Malformed)
}

#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    /// By name: the messages of the initializers.
    pub initializers: HashMap<&'a str, &'a [u8]>,
    /// By name: how many nodes' inputs, inputs and outputs of the graph it is.
    pub uses: HashMap<&'a str, usize>,
    /// By name: the node that gives it.
    pub producers: HashMap<&'a str, usize>,
}

impl<'a> Graph<'a> {
    /// `None` for a graph that refers to its tensors in ways that are not looked through: from inner graphs, sparse
    /// or quantization annotations.
    pub fn parse(message: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut this = Self::default();
        for field in fields(message) {
            let field = field?;
            match field.number {
                graph::NODE => this.nodes.push(Node::parse(field.bytes()?)?),
                graph::INITIALIZER => {
                    let message = field.bytes()?;
                    this.initializers.insert(text_of(message, tensor::NAME)?, message);
                }
                graph::INPUT | graph::OUTPUT => {
                    *this.uses.entry(text_of(field.bytes()?, VALUE_NAME)?).or_default() += 1;
                }
                graph::QUANTIZATION | graph::SPARSE_INITIALIZER => return Ok(None),
                _ => {}
            }
        }
        for (index, node) in this.nodes.iter().enumerate() {
            if node.attributes.values().any(|attribute| attribute.has_graph) {
                return Ok(None);
            }
            for &input in &node.inputs {
                *this.uses.entry(input).or_default() += 1;
            }
            for &output in &node.outputs {
                this.producers.insert(output, index);
            }
        }
        Ok(Some(this))
    }

    pub fn producer(&self, value: &str) -> Option<(usize, &Node<'a>)> {
        let &index = self.producers.get(value)?;
        Some((index, &self.nodes[index]))
    }

    pub fn uses(&self, value: &str) -> usize {
        self.uses.get(value).copied().unwrap_or(0)
    }

    /// The few integers of a constant: an initializer or what a Constant node gives.
    pub fn constant(&self, value: &str) -> Option<Vec<i64>> {
        let integers = |message: &'a [u8]| {
            let is_short = message.len() <= MAX_CONSTANT_BYTES;
            is_short.then(|| Tensor::parse(message).ok()?.integers()).flatten()
        };
        if let Some(message) = self.initializers.get(value) {
            return integers(message);
        }
        let (_, node) = self.producer(value)?;
        if node.operator != "Constant" {
            return None;
        }
        match node.attributes.get("value") {
            Some(attribute) => integers(attribute.tensor?),
            None => node.integers("value_ints").map(<[i64]>::to_vec),
        }
    }
}

/// One string of a message.
pub(super) fn text_of(message: &[u8], number: u32) -> Result<&str, Malformed> {
    let mut text = "";
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            text = field.text()?;
        }
    }
    Ok(text)
}
