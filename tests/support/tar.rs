//! Archives of plain files, written and read.

const BLOCK: usize = 512;

/// Files by path.
pub type Files = Vec<(String, String)>;

/// An archive of these files.
pub fn write(files: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, text) in files {
        let mut head = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, path.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", text.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// The files of an archive; nothing where it is none.
pub fn read(bytes: &[u8]) -> Option<Files> {
    let mut files = Files::new();
    let mut rest = bytes;
    loop {
        let (head, after) = rest.split_at_checked(BLOCK)?;
        if head.iter().all(|byte| *byte == 0) {
            return Some(files);
        }
        let text = |from: usize, to: usize| {
            let field = &head[from..to];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            std::str::from_utf8(&field[..end]).ok()
        };
        if !head[257..].starts_with(b"ustar") {
            return None;
        }
        let size = usize::from_str_radix(text(124, 136)?.trim(), 8).ok()?;
        let data = after.get(..size)?;
        files.push((text(0, 100)?.to_owned(), String::from_utf8_lossy(data).into_owned()));
        rest = after.get(size.next_multiple_of(BLOCK)..)?;
    }
}
