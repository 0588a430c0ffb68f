// The type of matrix tiles.
alias real = f32;
const REAL_MAX: f32 = 3.4e38;
