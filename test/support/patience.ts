/** How many times slower than a computer this machine may be: an emulated one sets it, and every deadline waits as long. */
export const PATIENCE = Number(process.env.CAISSON_PATIENCE ?? 1);
