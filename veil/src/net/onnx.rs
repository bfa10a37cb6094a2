//! As much of the ONNX format as the two known models need: the weights of their convolutions, in the order of the graph.
//! The file's SHA-256 has been checked before, so what is not as expected is an error and no case to be handled.

use std::collections::HashMap;

/// Weights of a convolution (output channels first, as ONNX has them) and its biases, batch normalisation folded in.
#[derive(Debug)]
pub(super) struct Conv {
    pub name: String,
    /// Output channels, input channels of a group, rows, columns; a transposed convolution has the first two swapped.
    pub shape: [usize; 4],
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

/// The convolutions of a model, transposed ones included.
pub(super) fn convolutions(model: &[u8]) -> Result<Vec<Conv>, String> {
    let graph = fields(model)
        .filter_map(Result::ok)
        .find_map(|(number, field)| if number == 7 { field.bytes() } else { None })
        .ok_or("the model has no graph")?;
    let mut tensors = HashMap::new();
    let mut nodes = Vec::new();
    for field in fields(graph) {
        match field? {
            (1, Field::Bytes(node)) => nodes.push(Node::parse(node)?),
            (5, Field::Bytes(tensor)) => {
                let tensor = Tensor::parse(tensor)?;
                tensors.insert(tensor.name, tensor);
            }
            _ => {}
        }
    }
    let mut found: Vec<Conv> = Vec::new();
    for node in nodes {
        let get = |i: usize| {
            let name = node.inputs.get(i).ok_or_else(|| format!("{} lacks an input", node.kind))?;
            tensors.get(name).ok_or_else(|| format!("{name} is missing"))
        };
        match node.kind {
            "Conv" | "ConvTranspose" => {
                let weights = get(1)?;
                let shape: [usize; 4] =
                    weights.dims.as_slice().try_into().map_err(|_| format!("{} is flat", weights.name))?;
                let out = if node.kind == "Conv" { shape[0] } else { shape[1] };
                let bias = if node.inputs.len() > 2 { get(2)?.numbers()? } else { vec![0.0; out] };
                let weights = Conv { name: weights.name.into(), shape, weights: weights.numbers()?, bias };
                if weights.weights.len() != shape.iter().product::<usize>() || weights.bias.len() != out {
                    return Err(format!("{} has the wrong length", weights.name));
                }
                found.push(weights);
            }
            // In the known models it follows a transposed convolution.
            "BatchNormalization" => {
                let values = [get(1)?.numbers()?, get(2)?.numbers()?, get(3)?.numbers()?, get(4)?.numbers()?];
                let conv = found.last_mut().ok_or("a normalisation of nothing")?;
                conv.normalise(&values).ok_or("a normalisation of the wrong size")?;
            }
            _ => {}
        }
    }
    Ok(found)
}

impl Conv {
    /// Folds scale, shift, mean and variance into the weights of a transposed convolution.
    fn normalise(&mut self, [scale, shift, mean, variance]: &[Vec<f32>; 4]) -> Option<()> {
        const EPSILON: f32 = 1e-3;
        let [inputs, outputs, rows, columns] = self.shape;
        for o in 0..outputs {
            let factor = scale.get(o)? / (variance.get(o)? + EPSILON).sqrt();
            *self.bias.get_mut(o)? = (self.bias.get(o)? - mean.get(o)?) * factor + shift.get(o)?;
            for i in 0..inputs {
                let at = (i * outputs + o) * rows * columns;
                self.weights.get_mut(at..at + rows * columns)?.iter_mut().for_each(|w| *w *= factor);
            }
        }
        Some(())
    }
}

struct Node<'a> {
    kind: &'a str,
    inputs: Vec<&'a str>,
}

impl<'a> Node<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut node = Node { kind: "", inputs: Vec::new() };
        for field in fields(bytes) {
            match field? {
                (1, Field::Bytes(name)) => node.inputs.push(text(name)?),
                (4, Field::Bytes(kind)) => node.kind = text(kind)?,
                _ => {}
            }
        }
        Ok(node)
    }
}

struct Tensor<'a> {
    name: &'a str,
    dims: Vec<usize>,
    raw: &'a [u8],
}

impl<'a> Tensor<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut tensor = Tensor { name: "", dims: Vec::new(), raw: &[] };
        for field in fields(bytes) {
            match field? {
                (1, Field::Number(n)) => tensor.dims.push(n as usize),
                (1, Field::Bytes(packed)) => {
                    let mut rest = packed;
                    while !rest.is_empty() {
                        tensor.dims.push(varint(&mut rest)? as usize);
                    }
                }
                (8, Field::Bytes(name)) => tensor.name = text(name)?,
                // Packed floats and raw data are the same bytes.
                (4 | 9, Field::Bytes(raw)) => tensor.raw = raw,
                _ => {}
            }
        }
        Ok(tensor)
    }

    fn numbers(&self) -> Result<Vec<f32>, String> {
        let (words, rest) = self.raw.as_chunks::<4>();
        if !rest.is_empty() || words.is_empty() {
            return Err(format!("{} holds no 32-bit numbers", self.name));
        }
        Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        if let Field::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// The fields of a protobuf message with their numbers.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Result<(u64, Field<'_>), String>> {
    let mut next = move || -> Result<Option<(u64, Field<'_>)>, String> {
        if rest.is_empty() {
            return Ok(None);
        }
        let key = varint(&mut rest)?;
        let mut take = |n: u64| {
            let (bytes, after) =
                usize::try_from(n).ok().and_then(|n| rest.split_at_checked(n)).ok_or("a field ends early")?;
            rest = after;
            Ok::<_, String>(bytes)
        };
        let field = match key & 7 {
            0 => Field::Number(varint(&mut rest)?),
            1 => take(8).map(|_| Field::Other)?,
            2 => {
                let length = varint(&mut rest)?;
                let (bytes, after) = usize::try_from(length)
                    .ok()
                    .and_then(|n| rest.split_at_checked(n))
                    .ok_or("a field ends early")?;
                rest = after;
                Field::Bytes(bytes)
            }
            5 => take(4).map(|_| Field::Other)?,
            kind => return Err(format!("a field of unknown kind {kind}")),
        };
        Ok(Some((key >> 3, field)))
    };
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let field = next().transpose();
        over = !matches!(field, Some(Ok(_)));
        field
    })
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or("a number ends early")?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number without end".into())
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a name that is no text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        // Field 7 (the graph) holding one initializer with a name and three bytes for its numbers.
        let model = [0x3a, 9, 0x2a, 7, 0x42, 1, b'w', 0x4a, 2, 1, 2];
        assert_eq!(convolutions(&model).map(|c| c.len()), Ok(0));
        for cut in 0..model.len() {
            let _ = convolutions(&model[..cut]);
            let mut damaged = model;
            damaged[cut] ^= 0xff;
            let _ = convolutions(&damaged);
        }
        assert!(convolutions(b"").is_err());
    }

    #[test]
    fn normalisation_is_folded() {
        let mut conv =
            Conv { name: "w".into(), shape: [1, 2, 1, 1], weights: vec![3.0, 5.0], bias: vec![0.0; 2] };
        let v = 4.0 - 1e-3;
        conv.normalise(&[vec![2.0, 4.0], vec![1.0, 0.0], vec![10.0, 1.0], vec![v, v]]).unwrap();
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&conv.weights, &[3.0, 10.0]) && near(&conv.bias, &[-9.0, -2.0]), "{conv:?}");
    }
}
