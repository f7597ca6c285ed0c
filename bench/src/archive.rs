//! A tar archive of one file of zeros, as it is uploaded.

const BLOCK: usize = 512;

/// Length of the archive around a file of `bulk` bytes (a multiple of the block size).
pub fn size(bulk: u64) -> u64 {
    bulk + 3 * BLOCK as u64
}

pub fn header(bulk: u64) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "data");
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{bulk:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// The end of every archive.
pub fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// One chunk of a chunked body.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
