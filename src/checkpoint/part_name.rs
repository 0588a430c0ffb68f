//! Names of the parts of a split model.

/// A name of the form `{stem}-{number:05}-of-{count:05}.{extension}`.
pub(crate) struct PartName<'a> {
    stem: &'a str,
    extension: &'a str,
    pub number: u32,
    pub count: u32,
}

impl<'a> PartName<'a> {
    /// `None` if the name is not that of a part.
    pub fn parse(name: &'a str, extension: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(extension)?.strip_suffix('.')?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            (text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| text.parse().ok())
        };
        let (number, count) = (digits(number)??, digits(count)??);
        (1..=count).contains(&number).then_some(PartName { stem, extension, number, count })
    }

    /// The name of another part of the set.
    pub fn sibling(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.stem, self.count, self.extension)
    }
}
