//! Bytes as a source of decisions and texts, so that any input means something.

use dhow_base::Rng;

/// Reads decisions off the front of the fuzzer's bytes. At their end it goes on with zeros.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    /// A number below `bound`, which is at most 256 and not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// A decision.
    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// The next bytes, as many as the byte before them says.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        bytes
    }

    /// A text of few letters, so that texts coincide, up to `longest` characters.
    pub fn word(&mut self, letters: &[u8], longest: usize) -> String {
        (0..self.below(longest + 1)).map(|_| char::from(self.pick(letters))).collect()
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Everything that is left, as text; bytes that are not UTF-8 are replaced.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.rest).into_owned()
    }
}

/// Some of `fragments`, one after the other, at times damaged.
pub fn assemble(rng: &mut Rng, fragments: &[&[u8]], most: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..1 + rng.below(most))
        .flat_map(|_| fragments[rng.index(fragments.len())].iter().copied())
        .collect();
    if rng.chance(1, 3) {
        mutate(rng, &mut bytes, fragments);
    }
    bytes
}

/// Random bytes.
pub fn noise(rng: &mut Rng, most: u64) -> Vec<u8> {
    (0..rng.below(most)).map(|_| rng.next_u32() as u8).collect()
}

/// Damages `bytes` in a few places.
pub fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, fragments: &[&[u8]]) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.index(bytes.len() + 1);
        match rng.below(6) {
            0 if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => {
                let end = (at + 1 + rng.index(4)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => bytes.insert(at, rng.next_u32() as u8),
            4 if at < bytes.len() => {
                let end = (at + 1 + rng.index(8)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let fragment = fragments.get(rng.index(fragments.len())).copied().unwrap_or_default();
                bytes.splice(at..at, fragment.iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_goes_on_behind_its_end() {
        let mut input = Input::new(&[2, b'a', b'b', 9]);
        assert_eq!(input.bytes(), b"ab");
        assert_eq!((input.below(4), input.is_empty()), (1, true));
        assert_eq!((input.byte(), input.flag(), input.bytes()), (0, false, &b""[..]));
        assert_eq!(Input::new(&[2, 0, 1]).word(b"xy", 3), "xy");
    }
}
