use super::*;

/// The words of WGSL text without its comments.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|line| line.split(|c| !is_word(c))).filter(|word| !word.is_empty())
}

fn fragments(word: &'static str) -> Vec<&'static str> {
    let interface = INTERFACES.iter().find(|(name, _)| *name == word);
    interface.map_or(vec![word], |(_, fragments)| fragments.to_vec())
}

fn means(word: &'static str, path: &'static str) -> bool {
    fragments(word).contains(&stem(path))
}

#[test]
fn files_need_what_they_use() {
    let all: Vec<&str> = FILES.iter().flat_map(|(_, text)| declared(text)).collect();
    for &(path, text) in FILES {
        let part = Part { path, instance: None, text, header: Header::of(text) };
        let used: Vec<&str> = words(text).collect();
        // A fragment's needs may be for the files that need this fragment.
        let for_others: Vec<&str> = FILES
            .iter()
            .filter(|(_, text)| Header::of(text).needs.iter().any(|need| means(need.word, path)))
            .flat_map(|(_, text)| words(text))
            .collect();
        for Need { word, instance } in &part.header.needs {
            let place = part.place(word);
            let uses = |fragment: &&str| {
                let file = locate(FILES, path, fragment);
                let file = file.unwrap_or_else(|| panic!("{place}: there is no {fragment}"));
                let needed = text_of(FILES, file).unwrap_or_default();
                let is_used = declared(needed).any(|name| {
                    let name = instance.map_or(name.into(), |own| name_in(own, name));
                    used.contains(&name.as_str()) || for_others.contains(&name.as_str())
                });
                is_used || declared(text).any(|name| words(needed).any(|w| w == name))
            };
            // All fragments of an interface are searched, since only one of them is used.
            let uses: Vec<bool> = fragments(word).iter().map(uses).collect();
            assert!(uses.contains(&true), "{place}: {word} is not used");
        }
        for name in &part.header.constants {
            assert!(used.contains(name), "{}: {name} is not used", part.place(name));
        }
        let is_constant = |word: &str| {
            word.len() > 1
                && word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.chars().all(|c| !c.is_ascii_lowercase())
        };
        for name in used.iter().filter(|word| is_constant(word) && !all.contains(word)) {
            let is_listed = part.header.constants.contains(name);
            assert!(is_listed, "{path}: the constant {name} is not listed");
        }
    }
}

#[test]
fn every_fragment_of_an_interface_is_there() {
    for (interface, fragments) in INTERFACES {
        for fragment in *fragments {
            assert!(
                FILES.iter().any(|(path, _)| stem(path) == *fragment),
                "{interface}: {fragment}"
            );
        }
    }
}

const KERNEL: &str = "shaders/linear/copy.wgsl";

fn assemble(wgsl: Wgsl, kernel: &'static str) -> Result<KernelSource, String> {
    let files = [
        (KERNEL, kernel),
        ("shaders/shared/once.wgsl", "//! needs: constants N\nconst ONCE: u32 = N;\n"),
        ("shaders/shared/twice.wgsl", "//! needs: once\nconst TWICE: u32 = 2u * ONCE;\n"),
    ];
    wgsl.assemble(&files, KERNEL)
}

#[test]
fn fragments_come_once_and_before_what_needs_them() {
    let kernel = "//! needs: twice, once;\n//! enables f16\nfn main() {}\n";
    let source = assemble(Wgsl::default().uint("N", 3), kernel).unwrap();
    let text: String = source.wgsl.lines().filter(|line| !line.starts_with("//!")).collect();
    assert_eq!(
        text,
        "enable f16;const N: u32 = 3u;\
         const ONCE: u32 = N;const TWICE: u32 = 2u * ONCE;fn main() {}"
    );
    assert_eq!(source.name, "copy");
}

#[test]
fn instances_have_names_of_their_own() {
    let files = [
        (KERNEL, "//! needs: once, sum<a>, sum<b>\nvar<workgroup> a_data: u32;\n"),
        ("shaders/shared/once.wgsl", "const ONCE: u32 = 1u;\n"),
        (
            "shaders/shared/sum.wgsl",
            "//! needs: once, part; constants N\nfn sum() { data + part(N).data + ONCE; }\n",
        ),
        ("shaders/shared/part.wgsl", "//! needs: once\nfn part(n: u32) {}\n"),
    ];
    let of = |n| Wgsl::default().uint("N", n);
    let wgsl = Wgsl::default().instance("a", of(1)).uint("N", 3);
    let text = wgsl.assemble(&files, KERNEL).unwrap().wgsl;
    let text: String = text.lines().filter(|line| !line.starts_with("//!")).collect();
    assert_eq!(
        text,
        "const A_N: u32 = 1u;const N: u32 = 3u;const ONCE: u32 = 1u;\
         var<workgroup> a_data: u32;\
         fn a_part(n: u32) {}fn a_sum() { a_data + a_part(A_N).data + ONCE; }\
         fn b_part(n: u32) {}fn b_sum() { data + b_part(N).data + ONCE; }"
    );
}

#[test]
fn faults_are_told_by_file_and_line() {
    let n = || Wgsl::default().uint("N", 3);
    for (wgsl, kernel, expected) in [
        (n(), "//! needs: once,\n//! thrice\n", "copy.wgsl:2: there is no fragment thrice"),
        (n(), "//! needs: epilogue\n", "copy.wgsl:1: nobody chooses a fragment for epilogue"),
        (Wgsl::default(), "//! needs: once\n", "once.wgsl:1: nobody gives the constant N"),
        (n().bool("M", true), "//! needs: once\n", "copy.wgsl:1: nothing needs the constant M"),
    ] {
        let error = assemble(wgsl, kernel).unwrap_err();
        assert!(error.ends_with(expected), "{error}");
    }
}
