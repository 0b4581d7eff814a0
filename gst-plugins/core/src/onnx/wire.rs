//! The protobuf wire format (protobuf.dev/programming-guides/encoding), as far as copying a message with a few
//! fields changed needs it. The libraries for protobuf either drop the fields that they do not know or copy all
//! weights; this borrows.

/// Not a protobuf message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    /// A string, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Four or eight bytes that nobody here reads.
    Fixed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
    /// The field as it stands in the message, its number included.
    pub whole: &'a [u8],
}

impl<'a> Field<'a> {
    pub fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    pub fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Adds the field's integers, which may be packed.
    pub fn integers(&self, to: &mut Vec<i64>) -> Result<(), Malformed> {
        match self.value {
            Value::Varint(value) => to.push(value as i64),
            Value::Bytes(mut rest) => {
                while !rest.is_empty() {
                    to.push(varint(&mut rest)? as i64);
                }
            }
            Value::Fixed => return Err(Malformed),
        }
        Ok(())
    }
}

/// The fields of a message in their order; the first error is the last item.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = field(&mut self.rest);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, Malformed> {
    let start = *rest;
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|&number| number > 0).ok_or(Malformed)?;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => take(rest, 8).map(|_| Value::Fixed)?,
        2 => {
            let length = varint(rest)?;
            Value::Bytes(take(rest, usize::try_from(length).map_err(|_| Malformed)?)?)
        }
        5 => take(rest, 4).map(|_| Value::Fixed)?,
        // Groups, which ONNX has none of.
        _ => return Err(Malformed),
    };
    Ok(Field { number, value, whole: &start[..start.len() - rest.len()] })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, after) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = after;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn put_varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

pub(super) fn put_integer(number: u32, value: i64, to: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3, to);
    put_varint(value as u64, to);
}

pub(super) fn put_bytes(number: u32, bytes: &[u8], to: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, to);
    put_varint(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}
