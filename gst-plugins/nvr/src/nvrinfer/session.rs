//! One ONNX Runtime session and how it is fed and read.

use std::{
    borrow::Cow,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nvr_core::{
    decode::{DecodeError, DecodeParams, Decoder, Output, OutputData, Picture, RawDetection},
    model::{ExtraInput, ModelIo, ModelSpec, TensorInfo},
    onnx::fold_focus,
    preprocess::{InputSpec, TensorLayout, Transform},
};
use ort::{
    ep::{self, ExecutionProvider},
    session::{Session, SessionInputValue, SessionOutputs, builder::GraphOptimizationLevel},
    value::{TensorElementType, TensorRef, ValueType},
};

use super::{CAT, exit::Busy, model_files::Source, runtime::Runtime, settings::Device, tensor::TensorBuf};

/// Why a session could not be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SessionError {
    #[error("device {wanted} is not available: {reason}. This ONNX Runtime has {available}")]
    Device { wanted: &'static str, reason: String, available: String },
    #[error("{model} cannot be loaded: {reason}")]
    Load { model: String, reason: String },
}

/// Where a session runs: one of the devices, never [`Device::Auto`].
fn provider(device: Device) -> Option<ep::ExecutionProviderDispatch> {
    match device {
        Device::Auto | Device::Cpu => None,
        Device::Cuda => Some(ep::CUDA::default().build().error_on_failure()),
        Device::Tensorrt => Some(ep::TensorRT::default().build().error_on_failure()),
        Device::Openvino => Some(ep::OpenVINO::default().build().error_on_failure()),
    }
}

/// Whether the library was built with a device; the machine may lack it still.
fn is_built_in(_runtime: &Runtime, device: Device) -> bool {
    match device {
        Device::Auto | Device::Cpu => true,
        Device::Cuda => ep::CUDA::is_available().unwrap_or(false),
        Device::Tensorrt => ep::TensorRT::is_available().unwrap_or(false),
        Device::Openvino => ep::OpenVINO::is_available().unwrap_or(false),
    }
}

/// The devices that the library was built with, for messages.
pub fn available(runtime: &Runtime) -> String {
    let all = [Device::Cpu, Device::Cuda, Device::Tensorrt, Device::Openvino];
    let names: Vec<_> =
        all.into_iter().filter(|&device| is_built_in(runtime, device)).map(Device::name).collect();
    names.join(", ")
}

/// The devices to try, best first. For [`Device::Auto`] CUDA, then OpenVINO, then the CPU (TensorRT only by name: it
/// spends minutes building an engine).
pub fn candidates(runtime: &Runtime, device: Device) -> Vec<Device> {
    if device != Device::Auto {
        return vec![device];
    }
    let accelerators =
        [Device::Cuda, Device::Openvino].into_iter().filter(|&device| is_built_in(runtime, device));
    accelerators.chain([Device::Cpu]).collect()
}

/// The graph optimizations that cost more than they gain. Up to 1.24, the product of a value and its sigmoid, which is
/// the activation of YOLOv5, YOLOX and what came after them, became one operation that does not know the blocked layout
/// of convolutions on a CPU: every one was surrounded by two conversions, a quarter of the whole inference.
fn slow_fusions(runtime: (u32, u32), device: Device) -> &'static str {
    if runtime < (1, 25) && device == Device::Cpu { "QuickGeluFusion" } else { "" }
}

/// Opens a session on a given device. On the CPU it has one thread, the caller's: several such sessions side by
/// side do more per core than one with a pool of spinning threads.
pub fn open(runtime: &Runtime, source: &Source, device: Device) -> Result<Session, SessionError> {
    let no_device = |reason: String| SessionError::Device {
        wanted: device.name(),
        reason,
        available: available(runtime),
    };
    let load = |error: &str| SessionError::Load { model: source.describe(), reason: one_line(error) };
    if !is_built_in(runtime, device) {
        return Err(no_device("the library was built without it".into()));
    }
    let options = || -> ort::Result<_> {
        let builder = Session::builder(&runtime.environment.0)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // One block for a whole run is larger than what a run holds at any one time.
            .with_memory_pattern(false)?;
        let builder = match slow_fusions(runtime.version, device) {
            "" => builder,
            fusions => builder.with_disabled_optimizers(fusions)?,
        };
        Ok(if runtime.shared_arena { builder.with_env_allocators()? } else { builder })
    };
    let mut builder = options().map_err(|error| load(error.message()))?;
    if let Some(provider) = provider(device) {
        builder = builder
            .with_execution_providers([provider])
            .map_err(|error| no_device(one_line(error.message())))?;
    }
    // What is wrong with a model is said of the file, not of what was made of it.
    let folded = folded(source, device).and_then(|model| builder.commit_from_memory(&model).ok());
    let session = match (folded, source) {
        (Some(session), _) => Ok(session),
        (None, Source::File { path, .. }) => builder.commit_from_file(Path::new(path)),
        (None, Source::BuiltIn(_)) => builder.commit_from_memory(source.built_in().unwrap_or_default()),
    };
    session.map_err(|error| load(error.message()))
}

/// A stem's share of a network is the smaller the larger the network is, and a large file is long in reading.
const MAX_FOLDED_BYTES: u64 = 64 << 20;

/// A model that gives the same on a CPU with less work. Other devices have optimizers of their own.
fn folded(source: &Source, device: Device) -> Option<Vec<u8>> {
    match source {
        Source::File { path, bytes, .. } if device == Device::Cpu && *bytes <= MAX_FOLDED_BYTES => {
            let folded = fold_focus(&fs::read(path).ok()?)?;
            gst::info!(CAT, "{}: its Focus stem runs as one convolution", source.describe());
            Some(folded)
        }
        _ => None,
    }
}

/// ONNX Runtime's messages are long and carry source locations; the first line says what is wrong.
fn one_line(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").trim();
    line.chars().take(400).collect()
}

/// What the file says of its inputs and outputs.
pub fn describe(session: &Session) -> ModelIo {
    let tensors = |outlets: &[ort::value::Outlet]| outlets.iter().map(tensor_info).collect();
    let mut metadata = std::collections::BTreeMap::new();
    if let Ok(model) = session.metadata() {
        for key in model.custom_keys().unwrap_or_default() {
            if let Some(value) = model.custom(&key) {
                metadata.insert(key, value);
            }
        }
    }
    ModelIo { inputs: tensors(session.inputs()), outputs: tensors(session.outputs()), metadata }
}

fn tensor_info(outlet: &ort::value::Outlet) -> TensorInfo {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            (element_name(*ty), shape.iter().map(|&size| usize::try_from(size).ok()).collect())
        }
        other => (Cow::Owned(format!("{other:?}")), Vec::new()),
    };
    TensorInfo { name: outlet.name().to_owned(), element: element.into_owned(), shape }
}

/// ONNX's own name of an element type.
fn element_name(ty: TensorElementType) -> Cow<'static, str> {
    Cow::Borrowed(match ty {
        TensorElementType::Float32 => "float32",
        TensorElementType::Float16 => "float16",
        TensorElementType::Float64 => "float64",
        TensorElementType::Uint8 => "uint8",
        TensorElementType::Int8 => "int8",
        TensorElementType::Int32 => "int32",
        TensorElementType::Int64 => "int64",
        TensorElementType::Bool => "bool",
        TensorElementType::String => "string",
        other => return Cow::Owned(format!("{other:?}").to_lowercase()),
    })
}

/// What went wrong with one batch.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    #[error("inference failed: {0}")]
    Run(String),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the model's output {name} has elements of type {element}, which no known layout has")]
    Element { name: String, element: String },
}

/// One picture of a batch, as far as reading the outputs needs it.
#[derive(Clone, Debug)]
pub struct PictureFacts {
    pub transform: Transform,
    pub width: usize,
    pub height: usize,
    pub params: Arc<DecodeParams>,
}

/// Runs one session; owned by one worker.
#[derive(Debug)]
pub struct Runner {
    session: Session,
    spec: Arc<ModelSpec>,
    decoder: Decoder,
    sizes: Vec<i64>,
}

/// What a batch gave: one entry per picture, and the wall time of the inference alone.
pub type BatchResult = (Vec<Result<Vec<RawDetection>, RunError>>, Duration);

impl Runner {
    pub fn new(session: Session, spec: Arc<ModelSpec>) -> Self {
        Self { session, spec, decoder: Decoder::default(), sizes: Vec::new() }
    }

    /// Forgets whatever a panic may have left half done.
    pub fn recover(&mut self) {
        self.decoder = Decoder::default();
    }

    /// Runs `input`, which has room for at least `batch` pictures of which the first `pictures.len()` count.
    pub fn run(
        &mut self,
        input: &TensorBuf,
        batch: usize,
        pictures: &[PictureFacts],
    ) -> Result<BatchResult, RunError> {
        // Threads of an element that hangs are not joined before the process ends.
        let _busy = Busy::new();
        let Self { session, spec, decoder, sizes } = self;
        let failed = |error: &ort::Error| RunError::Run(one_line(error.message()));
        let shape = shape(&spec.input, batch);
        let inputs = inputs(spec, input, &shape, sizes, batch, pictures).map_err(|error| failed(&error))?;

        let started = Instant::now();
        let outputs = session.run(inputs).map_err(|error| failed(&error))?;
        let elapsed = started.elapsed();

        let shapes = output_shapes(&outputs);
        let outputs = view(&outputs, &shapes)?;
        let results = pictures
            .iter()
            .enumerate()
            .map(|(index, facts)| {
                let picture = Picture {
                    index,
                    batch,
                    transform: facts.transform,
                    frame_width: facts.width,
                    frame_height: facts.height,
                };
                Ok(decoder.decode(spec, &outputs, picture, &facts.params)?)
            })
            .collect();
        Ok((results, elapsed))
    }
}

fn shape(spec: &InputSpec, batch: usize) -> [usize; 4] {
    match spec.layout {
        TensorLayout::Nchw => [batch, spec.channels(), spec.height, spec.width],
        TensorLayout::Nhwc => [batch, spec.height, spec.width, spec.channels()],
    }
}

type Inputs<'a> = Vec<(Cow<'a, str>, SessionInputValue<'a>)>;

fn inputs<'a>(
    spec: &'a ModelSpec,
    input: &'a TensorBuf,
    shape: &'a [usize; 4],
    sizes: &'a mut Vec<i64>,
    batch: usize,
    pictures: &[PictureFacts],
) -> ort::Result<Inputs<'a>> {
    // A tensor that was made for a larger batch serves a smaller one.
    fn part<'a, T>(data: &'a [T], shape: &[usize; 4]) -> ort::Result<&'a [T]> {
        let len = shape.iter().product();
        data.get(..len).ok_or_else(|| ort::Error::new("the input tensor is too small for its batch"))
    }
    let picture = match input {
        TensorBuf::F32(data) => TensorRef::from_array_view((&shape[..], part(data, shape)?))?.into(),
        TensorBuf::F16(data) => TensorRef::from_array_view((&shape[..], part(data, shape)?))?.into(),
        TensorBuf::U8(data) => TensorRef::from_array_view((&shape[..], part(data, shape)?))?.into(),
        TensorBuf::I8(data) => TensorRef::from_array_view((&shape[..], part(data, shape)?))?.into(),
    };
    let mut inputs: Inputs<'a> = vec![(Cow::Borrowed(spec.input_name.as_str()), picture)];

    // Every further input takes the pictures' original sizes, in one order or the other.
    sizes.clear();
    for extra in &spec.extra_inputs {
        let ExtraInput::OriginalSize { width_first, .. } = extra;
        for index in 0..batch {
            // Empty places of a fixed batch get the last picture's size.
            let facts = pictures.get(index).or(pictures.last());
            let (width, height) = facts.map_or((1, 1), |facts| (facts.width as i64, facts.height as i64));
            sizes.extend(if *width_first { [width, height] } else { [height, width] });
        }
    }
    for (extra, sizes) in spec.extra_inputs.iter().zip(sizes.chunks_exact(batch.max(1) * 2)) {
        let ExtraInput::OriginalSize { name, .. } = extra;
        inputs.push((Cow::Borrowed(name.as_str()), TensorRef::from_array_view(([batch, 2], sizes))?.into()));
    }
    Ok(inputs)
}

fn output_shapes(outputs: &SessionOutputs<'_>) -> Vec<Vec<usize>> {
    outputs
        .values()
        .map(|value| match value.dtype().tensor_shape() {
            Some(shape) => shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect(),
            None => Vec::new(),
        })
        .collect()
}

fn view<'a>(outputs: &'a SessionOutputs<'_>, shapes: &'a [Vec<usize>]) -> Result<Vec<Output<'a>>, RunError> {
    outputs
        .keys()
        .zip(shapes)
        .map(|(name, shape)| {
            let unreadable = |error: ort::Error| RunError::Run(one_line(error.message()));
            let value =
                outputs.get(name).ok_or_else(|| RunError::Run(format!("output {name} is missing")))?;
            let data = match value.dtype().tensor_type() {
                Some(TensorElementType::Float32) => {
                    OutputData::F32(value.try_extract_tensor().map_err(unreadable)?.1)
                }
                Some(TensorElementType::Float16) => {
                    OutputData::F16(value.try_extract_tensor().map_err(unreadable)?.1)
                }
                Some(TensorElementType::Uint8) => {
                    OutputData::U8(value.try_extract_tensor().map_err(unreadable)?.1)
                }
                Some(TensorElementType::Int32) => {
                    OutputData::I32(value.try_extract_tensor().map_err(unreadable)?.1)
                }
                Some(TensorElementType::Int64) => {
                    OutputData::I64(value.try_extract_tensor().map_err(unreadable)?.1)
                }
                other => {
                    let element = other.map_or(Cow::Borrowed("not a tensor"), element_name).into_owned();
                    return Err(RunError::Element { name: name.to_owned(), element });
                }
            };
            Ok(Output { name, shape, data })
        })
        .collect()
}
