//! Field numbers and enumerations of `onnx.proto` (github.com/onnx/onnx).

pub(super) mod model {
    pub const GRAPH: u32 = 7;
}

pub(super) mod graph {
    pub const NODE: u32 = 1;
    pub const INITIALIZER: u32 = 5;
    pub const INPUT: u32 = 11;
    pub const OUTPUT: u32 = 12;
    pub const QUANTIZATION: u32 = 14;
    pub const SPARSE_INITIALIZER: u32 = 15;
}

pub(super) mod node {
    pub const INPUT: u32 = 1;
    pub const OUTPUT: u32 = 2;
    pub const OPERATOR: u32 = 4;
    pub const ATTRIBUTE: u32 = 5;
    pub const DOMAIN: u32 = 7;
}

pub(super) mod attribute {
    pub const NAME: u32 = 1;
    pub const INTEGER: u32 = 3;
    pub const STRING: u32 = 4;
    pub const TENSOR: u32 = 5;
    pub const GRAPH: u32 = 6;
    pub const INTEGERS: u32 = 8;
    pub const GRAPHS: u32 = 11;
    pub const TYPE: u32 = 20;
    /// Of `TYPE`.
    pub const TYPE_INTEGERS: i64 = 7;
}

pub(super) mod tensor {
    pub const DIMS: u32 = 1;
    pub const ELEMENT: u32 = 2;
    pub const FLOATS: u32 = 4;
    pub const INT32S: u32 = 5;
    pub const INT64S: u32 = 7;
    pub const NAME: u32 = 8;
    pub const RAW: u32 = 9;
    pub const LOCATION: u32 = 14;
}

/// Of `TensorProto.DataType`.
pub(super) mod element {
    pub const FLOAT: i64 = 1;
    pub const INT32: i64 = 6;
    pub const INT64: i64 = 7;
    pub const FLOAT16: i64 = 10;
    pub const BFLOAT16: i64 = 16;
}
