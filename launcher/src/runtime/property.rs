//! Parameter values as GObject property values. A value becomes a number, a text, an enum entry: never an
//! element, whatever it holds.

use gst::{glib, prelude::*};

use crate::{
    graph::{Kind, Param, Value},
    template::{Assignment, Piece},
};

/// The class of an element's factory, which knows its properties without an instance.
pub(crate) fn class_of(factory: &str) -> Option<glib::object::ClassRef<'static, gst::Element>> {
    let factory = gst::ElementFactory::find(factory)?.load().ok()?.downcast::<gst::ElementFactory>().ok()?;
    glib::Class::<gst::Element>::from_type(factory.element_type())
}

/// Why a property cannot take a parameter at all, in words.
pub(crate) fn refuse(pspec: &glib::ParamSpec) -> Option<String> {
    let flags = pspec.flags();
    if !flags.contains(glib::ParamFlags::WRITABLE) {
        return Some(format!("property {:?} is read-only", pspec.name()));
    }
    if flags.contains(glib::ParamFlags::CONSTRUCT_ONLY) {
        return Some(format!("property {:?} can only be set while the element is made", pspec.name()));
    }
    let type_ = pspec.value_type();
    let simple = matches!(type_, glib::Type::STRING | glib::Type::BOOL)
        || is_number(type_)
        || type_.is_a(glib::Type::ENUM)
        || type_.is_a(glib::Type::FLAGS)
        || type_ == gst::Fraction::static_type()
        || type_ == gst::Caps::static_type()
        || type_ == gst::Array::static_type()
        || type_ == Vec::<String>::static_type();
    (!simple)
        .then(|| format!("property {:?} holds a {}, which no parameter can give", pspec.name(), type_.name()))
}

/// Whether a parameter can feed this property at all, whatever its value.
///
/// # Errors
/// Says what the property takes.
pub(crate) fn check_kind(pspec: &glib::ParamSpec, param: &Param, alone: bool) -> Result<(), String> {
    if let Some(why) = refuse(pspec) {
        return Err(why);
    }
    let type_ = pspec.value_type();
    let takes = takes(pspec);
    let is_text = type_ == glib::Type::STRING;
    let numeric = is_number(type_);
    let fits = match &param.kind {
        Kind::Bool => is_text || type_ == glib::Type::BOOL,
        Kind::Int { .. } | Kind::Float { .. } => {
            // In a longer text, a number cannot close or open anything.
            is_text || numeric || type_ == gst::Fraction::static_type() || !alone
        }
        Kind::Enum { .. } => type_ != glib::Type::BOOL && !numeric,
        // Free text in caps is asking for trouble: GStreamer's parser of them is not made for strangers.
        Kind::String | Kind::Secret | Kind::Uri => {
            let caps = type_ == gst::Caps::static_type();
            is_text || (alone && type_ != glib::Type::BOOL && !numeric && !caps)
        }
        Kind::Choice { .. } | Kind::Fragment => false,
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "property {:?} takes {takes}; parameter {:?} gives {}",
        pspec.name(),
        param.name,
        param.expected()
    ))
}

fn is_number(type_: glib::Type) -> bool {
    matches!(
        type_,
        glib::Type::I8
            | glib::Type::U8
            | glib::Type::I32
            | glib::Type::U32
            | glib::Type::I_LONG
            | glib::Type::U_LONG
            | glib::Type::I64
            | glib::Type::U64
            | glib::Type::F32
            | glib::Type::F64
    )
}

/// What a property takes, in words: range, or the names of an enum.
pub(crate) fn takes(pspec: &glib::ParamSpec) -> String {
    let type_ = pspec.value_type();
    if let Some((min, max)) = limits(pspec) {
        let kind =
            if matches!(type_, glib::Type::F32 | glib::Type::F64) { "a number" } else { "a whole number" };
        return if min <= -1e300 || max >= 1e300 {
            kind.into()
        } else {
            format!("{kind} from {min} to {max}")
        };
    }
    if type_ == glib::Type::BOOL {
        return "true or false".into();
    }
    if let Some(class) = glib::EnumClass::with_type(type_) {
        let names: Vec<_> = class.values().iter().map(glib::EnumValue::nick).collect();
        return format!("one of {}", names.join(", "));
    }
    if type_ == glib::Type::STRING { "text".into() } else { format!("a {}", type_.name()) }
}

/// The range of a number property.
fn limits(pspec: &glib::ParamSpec) -> Option<(f64, f64)> {
    macro_rules! first_of {
        ($($type:ident),*) => {
            $(if let Some(spec) = pspec.downcast_ref::<glib::$type>() {
                return Some((spec.minimum() as f64, spec.maximum() as f64));
            })*
        };
    }
    first_of!(
        ParamSpecChar,
        ParamSpecUChar,
        ParamSpecInt,
        ParamSpecUInt,
        ParamSpecLong,
        ParamSpecULong,
        ParamSpecInt64,
        ParamSpecUInt64,
        ParamSpecFloat,
        ParamSpecDouble
    );
    None
}

/// What an assignment comes to once its parameters have values. `None` where its only parameter has none:
/// then the property keeps its default.
///
/// # Errors
/// Passes on what `value_of` says; a text of several pieces needs all of them.
pub(crate) fn compose(
    assignment: &Assignment,
    value_of: &dyn Fn(&str) -> Result<Option<Value>, String>,
) -> Result<Option<Value>, String> {
    if let [Piece::Param(name)] = assignment.value.as_slice() {
        return value_of(name);
    }
    let mut text = String::new();
    for piece in &assignment.value {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Param(name) => {
                let value = value_of(name)?.ok_or_else(|| {
                    format!("parameter {name:?} has no value and is part of {:?}", assignment.key)
                })?;
                text.push_str(&value.to_string());
            }
        }
    }
    Ok(Some(Value::Text(text)))
}

/// A value as this property takes it.
///
/// # Errors
/// Says what the property takes. The value itself is left out: it may be a secret.
pub(crate) fn convert(pspec: &glib::ParamSpec, value: &Value) -> Result<glib::Value, String> {
    if let Some(why) = refuse(pspec) {
        return Err(why);
    }
    let type_ = pspec.value_type();
    let wrong = || format!("property {:?} takes {}", pspec.name(), takes(pspec));
    let text = value.to_string();
    if text.contains('\0') {
        return Err(format!("property {:?} cannot hold a NUL character", pspec.name()));
    }
    if type_ == glib::Type::STRING {
        return Ok(text.to_value());
    }
    if type_ == Vec::<String>::static_type() {
        return Ok(list(&text).map(str::to_owned).collect::<Vec<_>>().to_value());
    }
    if type_ == gst::Array::static_type() {
        return Ok(gst::Array::new(list(&text)).to_value());
    }
    if type_ == gst::Fraction::static_type()
        && let Some(number) = as_number(value)
    {
        return gst::Fraction::approximate_f64(number).map(|fraction| fraction.to_value()).ok_or_else(wrong);
    }
    if let Some((min, max)) = limits(pspec) {
        let number = as_number(value).or_else(|| text.trim().parse().ok());
        if number.is_some_and(|number| number < min || number > max || number.is_nan()) {
            return Err(wrong());
        }
        // A whole number may come as a float; "5.0" is no integer to the deserialiser.
        let whole = number.filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
        let integer = !matches!(type_, glib::Type::F32 | glib::Type::F64);
        let text = match whole {
            Some(number) if integer => format!("{number:.0}"),
            _ => text,
        };
        return glib::Value::deserialize(&text, type_).map_err(|_| wrong());
    }
    glib::Value::deserialize(&text, type_).map_err(|_| wrong())
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Text(_) | Value::Bool(_) => None,
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Whether the element takes a new value while it plays.
pub(crate) fn changes_while_playing(pspec: &glib::ParamSpec) -> bool {
    pspec.flags().intersects(gst::PARAM_FLAG_MUTABLE_PLAYING | gst::PARAM_FLAG_CONTROLLABLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pspec(factory: &str, property: &str) -> glib::ParamSpec {
        gst::init().unwrap();
        class_of(factory).unwrap().find_property(property).unwrap()
    }

    #[test]
    fn values_take_the_type_of_their_property() {
        let num_buffers = pspec("videotestsrc", "num-buffers");
        assert_eq!(convert(&num_buffers, &Value::Float(5.0)).unwrap().get::<i32>().unwrap(), 5);
        assert_eq!(convert(&num_buffers, &Value::Text("7".into())).unwrap().get::<i32>().unwrap(), 7);
        assert!(convert(&num_buffers, &Value::Float(5.5)).is_err());
        assert_eq!(
            convert(&num_buffers, &Value::Int(-2)).unwrap_err(),
            "property \"num-buffers\" takes a whole number from -1 to 2147483647"
        );
        let live = pspec("videotestsrc", "is-live");
        assert!(convert(&live, &Value::Bool(true)).unwrap().get::<bool>().unwrap());
        let leaky = pspec("queue", "leaky");
        assert!(convert(&leaky, &Value::Text("downstream".into())).is_ok());
        assert_eq!(
            convert(&leaky, &Value::Text("sideways".into())).unwrap_err(),
            "property \"leaky\" takes one of no, upstream, downstream"
        );
        let probability = pspec("identity", "drop-probability");
        assert!(convert(&probability, &Value::Float(0.5)).is_ok());
        assert!(convert(&probability, &Value::Float(1.5)).is_err());
        let caps = pspec("capsfilter", "caps");
        assert!(convert(&caps, &Value::Text("video/x-raw,width=4".into())).is_ok());
        let text = Param {
            name: "p".into(),
            kind: Kind::String,
            default: None,
            live: false,
            remote: false,
            scope: crate::graph::Scope::Instance,
            required: false,
            help: String::new(),
            line: 1,
        };
        assert!(check_kind(&caps, &text, true).is_err() && check_kind(&caps, &text, false).is_err());
        let number = Param { kind: Kind::Int { min: 0, max: 9 }, ..text };
        assert!(check_kind(&caps, &number, false).is_ok());
    }

    #[test]
    fn no_parameter_can_give_an_element() {
        let sink = pspec("playbin", "video-sink");
        let message = convert(&sink, &Value::Text("fakesink".into())).unwrap_err();
        assert!(message.contains("which no parameter can give"), "{message}");
        assert!(convert(&pspec("videotestsrc", "is-live"), &Value::Text("fakesink".into())).is_err());
        assert!(refuse(&pspec("identity", "last-message")).is_some());
    }

    proptest! {
        #[test]
        fn a_text_is_set_as_it_is(text in "[^\0]{0,60}") {
            let location = pspec("filesink", "location");
            let value = convert(&location, &Value::Text(text.clone())).unwrap();
            prop_assert_eq!(value.get::<String>().unwrap(), text);
        }

        #[test]
        fn no_value_makes_a_conversion_panic(text in ".{0,40}", number in any::<f64>(), whole in any::<i64>()) {
            for (factory, property) in [
                ("videotestsrc", "num-buffers"), ("videotestsrc", "pattern"), ("queue", "max-size-time"),
                ("identity", "drop-probability"), ("identity", "silent"),
                ("videorate", "max-rate"), ("playbin", "flags"),
            ] {
                let pspec = pspec(factory, property);
                for value in [Value::Text(text.clone()), Value::Float(number), Value::Int(whole), Value::Bool(true)] {
                    let _ = convert(&pspec, &value);
                }
            }
        }
    }
}
