//! Unrolls marked loops of WGSL text. Drivers leave loops around arrays of registers as they are,
//! and then put the arrays into memory. docs/performance.md has the costs.

use crate::gpu::kernels::header::replace_words;

/// What marks a loop, at the end of its first line.
const MARK: &str = "{ // unrolled";

/// Replaces every loop `for (var i = 0u; i < N; i++) { // unrolled` by N blocks, in which `i` is a
/// literal. N is a constant of the text or a literal. Panics if a marked loop has another form: the
/// shaders are part of the program.
pub(in crate::gpu) fn unroll(wgsl: &str) -> String {
    let mut text = wgsl.to_owned();
    while let Some(mark) = text.find(MARK) {
        let start = text[..mark].rfind("for (").expect("a marked loop");
        let (name, count) = header(wgsl, &text[start..mark]);
        let body = mark + MARK.len();
        let end = body + closing_brace(&text[body..]);
        let blocks: String = (0..count)
            .map(|i| {
                let literal = |word: &str| (word == name).then(|| format!("{i}u"));
                format!("{{{}}}", replace_words(&text[body..end], literal))
            })
            .collect();
        text.replace_range(start..=end, &blocks);
    }
    text
}

/// The variable of `for (var i = 0u; i < N; i++) ` and N.
fn header(wgsl: &str, header: &str) -> (String, u32) {
    let read = || {
        let (name, rest) = header.strip_prefix("for (var ")?.split_once(" = 0u; ")?;
        let bound =
            rest.strip_prefix(name)?.strip_prefix(" < ")?.strip_suffix(&format!("; {name}++) "))?;
        let value = match bound.starts_with(|first: char| first.is_ascii_digit()) {
            true => bound,
            false => wgsl.split_once(&format!("const {bound}: u32 = "))?.1.split_once(';')?.0,
        };
        Some((name.to_owned(), value.strip_suffix('u')?.parse().ok()?))
    };
    read().unwrap_or_else(|| panic!("this loop cannot be unrolled: {header}"))
}

/// Where the brace that was opened before `text` is closed.
fn closing_brace(text: &str) -> usize {
    let mut depth = 1;
    let closes = |character: char| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        depth == 0
    };
    text.find(closes).expect("braces that match")
}

#[cfg(test)]
mod tests {
    use super::unroll;

    #[test]
    fn nested_loops_become_blocks() {
        let wgsl = "const N: u32 = 2u;\nfor (var i = 0u; i < N; i++) { // unrolled\n a[i].i += ii; \
                    for (var j = 0u; j < 2u; j++) { // unrolled\n b[i][j]; } }\nrest";
        let expected = "const N: u32 = 2u;\n{\n a[0u].i += ii; {\n b[0u][0u]; }{\n b[0u][1u]; } }\
                        {\n a[1u].i += ii; {\n b[1u][0u]; }{\n b[1u][1u]; } }\nrest";
        assert_eq!(unroll(wgsl), expected);
    }

    #[test]
    fn other_loops_stay() {
        let wgsl = "for (var i = 0u; i < n; i++) { x += 1.0; }";
        assert_eq!(unroll(wgsl), wgsl);
    }

    #[test]
    #[should_panic = "cannot be unrolled"]
    fn unknown_bounds_are_refused() {
        unroll("for (var i = 0u; i < n; i++) { // unrolled\n}");
    }
}
