//! PURE: the stream of a seed: `ChaCha20` (RFC 8439) with the seed as its key, a nonce of
//! zeros and a counter of 64 bits.

const BLOCK: usize = 64;

/// A seed's stream, and how much of it was given away.
#[derive(Debug)]
pub(crate) struct Stream {
    seed: [u8; 32],
    position: u64,
}

impl Stream {
    /// Starts a seed's stream.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, position: 0 }
    }

    /// Returns the next bytes.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        fill(&self.seed, self.position, &mut bytes);
        self.position += count as u64;
        bytes
    }

    /// Takes back bytes that did not arrive.
    pub(crate) fn give_back(&mut self, count: u64) {
        self.position -= count;
    }
}

/// Fills a buffer with the bytes of a seed's stream from a position on.
fn fill(seed: &[u8; 32], position: u64, into: &mut [u8]) {
    let mut at = position;
    let mut rest = into;
    while !rest.is_empty() {
        let block = block(seed, at / BLOCK as u64);
        let skip = usize::try_from(at % BLOCK as u64).unwrap_or(0);
        let count = rest.len().min(BLOCK - skip);
        let (now, later) = rest.split_at_mut(count);
        now.iter_mut()
            .zip(block.iter().skip(skip))
            .for_each(|(to, from)| *to = *from);
        at += count as u64;
        rest = later;
    }
}

fn block(key: &[u8; 32], counter: u64) -> [u8; BLOCK] {
    let mut state = [0_u32; 16];
    let words = b"expand 32-byte k".chunks(4).chain(key.chunks(4));
    for (to, from) in state.iter_mut().zip(words) {
        *to = from
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    let [.., low, high, _, _] = &mut state;
    *low = (counter & 0xffff_ffff) as u32;
    *high = (counter >> 32) as u32;
    let start = state;
    for _ in 0..10 {
        for columns in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            quarter(&mut state, columns);
        }
        for diagonal in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter(&mut state, diagonal);
        }
    }
    let mut bytes = [0; BLOCK];
    for ((to, word), first) in bytes.chunks_mut(4).zip(state).zip(start) {
        to.copy_from_slice(&word.wrapping_add(first).to_le_bytes());
    }
    bytes
}

/// Mixes four words of the state.
#[expect(clippy::indexing_slicing, reason = "the numbers above are below 16")]
fn quarter(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (sum, mixed, add, turn) in [(a, d, b, 16), (c, b, d, 12), (a, d, b, 8), (c, b, d, 7)] {
        state[sum] = state[sum].wrapping_add(state[add]);
        state[mixed] = (state[mixed] ^ state[sum]).rotate_left(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce of zeros.
    #[test]
    fn the_stream_is_the_published_one() {
        let mut bytes = [0; 72];
        fill(&[0; 32], 0, &mut bytes);
        assert_eq!(
            bytes[..16],
            [
                0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86,
                0xbd, 0x28
            ]
        );
        assert_eq!(
            bytes[64..],
            [0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a]
        );
    }

    #[test]
    fn any_cut_gives_the_same_stream() {
        let mut whole = [0; 200];
        fill(&[7; 32], 0, &mut whole);
        for cut in [1, 63, 64, 65, 130] {
            let mut part = [0; 60];
            fill(&[7; 32], cut as u64, &mut part);
            assert_eq!(part, whole[cut..cut + 60]);
        }
    }
}
