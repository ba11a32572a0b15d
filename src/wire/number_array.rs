//! An array of whole numbers in as few bytes as the largest of them needs: routed experts, sampling masks.
//!
//! 40,000 tokens of a model with 48 layers and eight experts per layer have 15 million numbers. Nothing here knows what they mean.

/// An array of numbers that fit into 64 bits with their sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberArray {
    numbers: Numbers,
    shape: Shape,
}

/// The numbers, the last dimension innermost.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbers {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

/// The same expression for the numbers of every type.
macro_rules! of_all {
    ($numbers:expr, $all:ident => $result:expr) => {
        match $numbers {
            Numbers::U8($all) => $result,
            Numbers::U16($all) => $result,
            Numbers::U32($all) => $result,
            Numbers::I16($all) => $result,
            Numbers::I32($all) => $result,
            Numbers::I64($all) => $result,
        }
    };
}

impl Numbers {
    /// The same numbers in the smallest type that also holds `number`, which theirs does not.
    fn widened(&self, number: i64) -> Self {
        fn all<T: Copy, U: TryFrom<T>>(numbers: &[T]) -> Vec<U> {
            numbers.iter().filter_map(|number| U::try_from(*number).ok()).collect()
        }
        let (is_short, is_int) = (i16::try_from(number).is_ok(), i32::try_from(number).is_ok());
        match self {
            Self::U8(numbers) if u16::try_from(number).is_ok() => Self::U16(all(numbers)),
            Self::U8(numbers) if u32::try_from(number).is_ok() => Self::U32(all(numbers)),
            Self::U8(numbers) if is_short => Self::I16(all(numbers)),
            Self::U8(numbers) if is_int => Self::I32(all(numbers)),
            Self::U16(numbers) if u32::try_from(number).is_ok() => Self::U32(all(numbers)),
            Self::U16(numbers) if is_int => Self::I32(all(numbers)),
            Self::I16(numbers) if is_int => Self::I32(all(numbers)),
            numbers => Self::I64(of_all!(numbers, numbers => all(numbers))),
        }
    }
}

/// How the numbers are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// By the lengths of the dimensions.
    Regular(Vec<usize>),
    /// Into lists of these lengths.
    Lists(Vec<u32>),
}

impl Default for Numbers {
    fn default() -> Self {
        Self::U8(Vec::new())
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::Regular(vec![0])
    }
}

impl NumberArray {
    /// The elements of the first dimension.
    pub(crate) fn rows(&self) -> usize {
        match &self.shape {
            Shape::Regular(lengths) => lengths.first().copied().unwrap_or_default(),
            Shape::Lists(lengths) => lengths.len(),
        }
    }

    /// The lengths of its dimensions. `None`: it is divided into lists.
    pub(crate) fn dimensions(&self) -> Option<&[usize]> {
        if let Shape::Regular(lengths) = &self.shape { Some(lengths) } else { None }
    }

    /// The lengths of its lists. `None`: it has more dimensions than two, or one.
    pub(crate) fn lengths(&self) -> Option<&[u32]> {
        if let Shape::Lists(lengths) = &self.shape { Some(lengths) } else { None }
    }

    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        of_all!(&self.numbers, all => all.len())
    }

    /// All numbers in their order.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = i64> + '_ {
        fn number<T: Copy + TryInto<i64>>(all: &[T], at: usize) -> Option<i64> {
            (*all.get(at)?).try_into().ok()
        }
        (0..self.len()).filter_map(|at| of_all!(&self.numbers, all => number(all, at)))
    }

    /// The numbers as little-endian bytes, of the type [`Self::dtype`].
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        of_all!(&self.numbers, all => all.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    /// numpy's name of the type of its numbers.
    pub(crate) fn dtype(&self) -> &'static str {
        match &self.numbers {
            Numbers::U8(_) => "uint8",
            Numbers::U16(_) => "uint16",
            Numbers::U32(_) => "uint32",
            Numbers::I16(_) => "int16",
            Numbers::I32(_) => "int32",
            Numbers::I64(_) => "int64",
        }
    }

    /// The bytes of memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        let lengths = if let Shape::Lists(lengths) = &self.shape { lengths.capacity() * size_of::<u32>() } else { 0 };
        lengths + of_all!(&self.numbers, all => size_of_val(all.as_slice()))
    }

    /// Adds a number to the last dimension.
    pub(super) fn push(&mut self, number: i64) {
        fn added<T: TryFrom<i64>>(all: &mut Vec<T>, number: i64) -> bool {
            T::try_from(number).map(|number| all.push(number)).is_ok()
        }
        if !of_all!(&mut self.numbers, all => added(all, number)) {
            self.numbers = self.numbers.widened(number);
            of_all!(&mut self.numbers, all => added(all, number));
        }
    }

    /// Makes room for as many numbers, up to [`MAX_RESERVED`]: the count may be wrong.
    pub(super) fn reserve(&mut self, count: usize) {
        if let Numbers::U8(all) = &mut self.numbers {
            all.reserve_exact(count.min(MAX_RESERVED));
        }
    }

    /// Divides the numbers by these lengths of dimensions. False: their product is another number.
    pub(super) fn set_dimensions(&mut self, lengths: Vec<usize>) -> bool {
        let fits = lengths.iter().try_fold(1, |all: usize, length| all.checked_mul(*length)) == Some(self.len());
        if fits {
            self.shape = Shape::Regular(lengths);
        }
        fits
    }

    /// Divides the numbers into lists of these lengths. The sum of the lengths is the count of the numbers.
    pub(super) fn set_lengths(&mut self, lengths: Vec<u32>) {
        self.shape = Shape::Lists(lengths);
    }

    /// An array of one dimension as one of `rows` rows. `None`: it has more dimensions, or can't be divided so.
    pub(crate) fn divided(&self, rows: usize) -> Option<Self> {
        let width = self.len().checked_div(rows).filter(|width| width * rows == self.len())?;
        let is_flat = self.dimensions().is_some_and(|lengths| lengths.len() == 1);
        is_flat.then(|| Self { numbers: self.numbers.clone(), shape: Shape::Regular(vec![rows, width]) })
    }

    /// Adds the rows of another array. False: they are not like its own.
    pub(crate) fn append(&mut self, other: &Self) -> bool {
        match (&mut self.shape, &other.shape) {
            (Shape::Lists(lengths), Shape::Lists(more)) => lengths.extend_from_slice(more),
            (Shape::Regular(lengths), Shape::Regular(more)) if lengths.get(1..) == more.get(1..) => {
                let (Some(rows), Some(added)) = (lengths.first_mut(), more.first()) else { return false };
                *rows += added;
            }
            _ => return false,
        }
        other.numbers().for_each(|number| self.push(number));
        true
    }
}

/// The most numbers for which memory is reserved before they have arrived.
const MAX_RESERVED: usize = 16 << 20;
