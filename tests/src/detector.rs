//! A model from file to boxes without any element: preprocessing, ONNX Runtime, decoding.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, bail};
use half::f16;
use nvr_core::{
    decode::{DecodeParams, Decoder, Output, OutputData, Picture, RawDetection},
    frame::Frame,
    model::{ExtraInput, ModelHints, ModelIo, ModelSpec, TensorInfo},
    onnx::fold_focus,
    preprocess::{ElementType, Preprocessor, TensorLayout, TensorMut, Transform},
};
use ort::{
    environment::Environment,
    session::{
        Session, SessionInputValue, SessionOutputs,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{Outlet, TensorElementType, TensorRef, ValueType},
};

use crate::skipped;

/// What distributions call the library.
const SYSTEM_LIBRARIES: [&str; 3] = ["libonnxruntime.so.1", "libonnxruntime.so.1.21", "libonnxruntime.so"];

/// The file that set-up has put into the data folder, or the one that `ORT_DYLIB_PATH` names. `None` where the
/// distribution has the library, or nobody.
pub fn runtime_library() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("NVR_DATA_DIR")
        .or_else(|| set("XDG_DATA_HOME").map(|dir| dir.join("nvr")))
        .or_else(|| set("HOME").map(|dir| dir.join(".local/share/nvr")));
    let path = set("ORT_DYLIB_PATH").or_else(|| data.map(|dir| dir.join("lib/libonnxruntime.so")))?;
    path.is_file().then_some(path)
}

/// ONNX Runtime. `None` where there is none; the test that asked says that it was skipped and has to return.
pub fn runtime() -> Option<&'static Environment> {
    static RUNTIME: OnceLock<Option<Environment>> = OnceLock::new();
    let found = RUNTIME.get_or_init(|| {
        let path = runtime_library();
        let mut names = path.as_deref().into_iter().chain(SYSTEM_LIBRARIES.map(Path::new));
        let found = names.find_map(|name| ort::init_from(name).ok())?;
        Some(found.with_telemetry(false).build().expect("ONNX Runtime starts"))
    });
    if found.is_none() {
        skipped("ONNX Runtime; `make setup` installs it, or ORT_DYLIB_PATH names it");
    }
    found.as_ref()
}

/// A loaded model.
#[derive(Debug)]
pub struct Detector {
    pub spec: ModelSpec,
    session: Session,
    preprocessor: Preprocessor,
    decoder: Decoder,
    tensor: Tensor,
}

/// One picture's input.
#[derive(Debug)]
enum Tensor {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

impl Detector {
    /// Loads a model with the facts that a `.toml` beside it would state.
    pub fn open(runtime: &Environment, path: &Path, hints: ModelHints) -> anyhow::Result<Self> {
        Self::new(load(runtime, path)?, path, hints)
    }

    /// As [`open`](Self::open), with the model's Focus stem as one convolution, as `nvrinfer` runs it.
    pub fn open_folded(runtime: &Environment, path: &Path, hints: ModelHints) -> anyhow::Result<Self> {
        let model = fold_focus(&std::fs::read(path)?).context("no Focus stem")?;
        let session = builder(runtime).and_then(|mut builder| builder.commit_from_memory(&model))?;
        Self::new(session, path, hints)
    }

    fn new(session: Session, path: &Path, hints: ModelHints) -> anyhow::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let spec = ModelSpec::resolve(&describe(&session), &[("test", hints)], &name)?;
        // Of a fixed batch, the first place is used; the others stay black.
        let len = spec.input.len() * spec.batch.unwrap_or(1);
        let tensor = match spec.input.element {
            ElementType::F32 => Tensor::F32(vec![0.0; len]),
            ElementType::F16 => Tensor::F16(vec![f16::ZERO; len]),
            ElementType::U8 => Tensor::U8(vec![0; len]),
            ElementType::I8 => Tensor::I8(vec![0; len]),
        };
        let preprocessor = Preprocessor::new(spec.input.clone());
        Ok(Self { spec, session, preprocessor, decoder: Decoder::default(), tensor })
    }

    /// What the model sees in one frame.
    pub fn detect(&mut self, frame: &Frame<'_>, params: &DecodeParams) -> anyhow::Result<Vec<RawDetection>> {
        let one = self.spec.input.len();
        let transform = self.preprocessor.run(
            frame,
            match &mut self.tensor {
                Tensor::F32(data) => TensorMut::F32(&mut data[..one]),
                Tensor::F16(data) => TensorMut::F16(&mut data[..one]),
                Tensor::U8(data) => TensorMut::U8(&mut data[..one]),
                Tensor::I8(data) => TensorMut::I8(&mut data[..one]),
            },
        )?;
        self.infer(transform, frame.width, frame.height, params)
    }

    fn infer(
        &mut self,
        transform: Transform,
        frame_width: usize,
        frame_height: usize,
        params: &DecodeParams,
    ) -> anyhow::Result<Vec<RawDetection>> {
        let input = &self.spec.input;
        let (c, h, w) = (input.channels(), input.height, input.width);
        let batch = self.spec.batch.unwrap_or(1);
        let shape = match input.layout {
            TensorLayout::Nchw => [batch, c, h, w],
            TensorLayout::Nhwc => [batch, h, w, c],
        };
        let picture: SessionInputValue<'_> = match &self.tensor {
            Tensor::F32(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
            Tensor::F16(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
            Tensor::U8(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
            Tensor::I8(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
        };
        let size = [frame_width as i64, frame_height as i64].repeat(batch);
        let mut inputs = vec![(self.spec.input_name.clone(), picture)];
        for ExtraInput::OriginalSize { name, .. } in &self.spec.extra_inputs {
            inputs.push((name.clone(), TensorRef::from_array_view(([batch, 2], &size[..]))?.into()));
        }
        let outputs = self.session.run(inputs)?;
        let shapes = shapes(&outputs);
        let outputs = views(&outputs, &shapes)?;
        let picture = Picture { index: 0, batch: 1, transform, frame_width, frame_height };
        Ok(self.decoder.decode(&self.spec, &outputs, picture, params)?)
    }
}

fn load(runtime: &Environment, path: &Path) -> anyhow::Result<Session> {
    builder(runtime)
        .and_then(|mut builder| builder.commit_from_file(path))
        .with_context(|| path.display().to_string())
}

fn builder(runtime: &Environment) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(runtime)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(1)?
        .with_intra_op_spinning(false)?)
}

/// What the file says of itself.
pub fn describe_file(runtime: &Environment, path: &Path) -> anyhow::Result<ModelIo> {
    Ok(describe(&load(runtime, path)?))
}

fn describe(session: &Session) -> ModelIo {
    let mut metadata = BTreeMap::new();
    if let Ok(model) = session.metadata() {
        for key in model.custom_keys().unwrap_or_default() {
            if let Some(value) = model.custom(&key) {
                metadata.insert(key, value);
            }
        }
    }
    let tensors = |outlets: &[Outlet]| outlets.iter().map(info).collect();
    ModelIo { inputs: tensors(session.inputs()), outputs: tensors(session.outputs()), metadata }
}

fn info(outlet: &Outlet) -> TensorInfo {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let element = match ty {
                TensorElementType::Float32 => "float32".into(),
                TensorElementType::Float16 => "float16".into(),
                other => format!("{other:?}").to_lowercase(),
            };
            (element, shape.iter().map(|&size| usize::try_from(size).ok()).collect())
        }
        other => (format!("{other:?}"), Vec::new()),
    };
    TensorInfo { name: outlet.name().to_owned(), element, shape }
}

fn shapes(outputs: &SessionOutputs<'_>) -> Vec<Vec<usize>> {
    outputs
        .values()
        .map(|value| {
            value
                .dtype()
                .tensor_shape()
                .map_or_else(Vec::new, |shape| shape.iter().map(|&size| size as usize).collect())
        })
        .collect()
}

fn views<'a>(outputs: &'a SessionOutputs<'_>, shapes: &'a [Vec<usize>]) -> anyhow::Result<Vec<Output<'a>>> {
    let mut views = Vec::new();
    for (name, shape) in outputs.keys().zip(shapes) {
        let value = outputs.get(name).context("no such output")?;
        let data = match value.dtype().tensor_type() {
            Some(TensorElementType::Float32) => OutputData::F32(value.try_extract_tensor()?.1),
            Some(TensorElementType::Float16) => OutputData::F16(value.try_extract_tensor()?.1),
            Some(TensorElementType::Uint8) => OutputData::U8(value.try_extract_tensor()?.1),
            Some(TensorElementType::Int32) => OutputData::I32(value.try_extract_tensor()?.1),
            Some(TensorElementType::Int64) => OutputData::I64(value.try_extract_tensor()?.1),
            other => bail!("output {name} is {other:?}"),
        };
        views.push(Output { name, shape, data });
    }
    Ok(views)
}
