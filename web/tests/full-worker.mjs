// The package's worker with a storage that takes at most `most` bytes at once, and at most `room`
// in all.

const of = (name) => Number(new URL(self.location.href).searchParams.get(name) ?? Infinity);
const [most, entries] = [of("most"), of("entries")];
let [room, written] = [of("room"), 0];
const { write } = FileSystemSyncAccessHandle.prototype;
FileSystemSyncAccessHandle.prototype.write = function (bytes, options) {
  // What is known of a file is one write of a JSON text.
  if (bytes[0] === 0x7b && ++written > entries) return 0;
  const count = Math.min(bytes.length, most, room);
  room -= count;
  return count === 0 ? 0 : write.call(this, bytes.subarray(0, count), options);
};

// Messages that come before the package listens wait here.
const early = [];
self.onmessage = (event) => early.push(event);
await import("/package/worker.js");
early.forEach((event) => self.onmessage(event));
