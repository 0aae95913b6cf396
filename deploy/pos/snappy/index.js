// What Lodestar calls of the native package, without a native build: callbacks as in snappy 6.
const { compress, uncompress } = require('snappyjs')

const later = (work, done) => {
  queueMicrotask(() => {
    try {
      done(null, Buffer.from(work()))
    } catch (error) {
      done(error)
    }
  })
}

exports.compressSync = (data) => Buffer.from(compress(data))
exports.compress = (data, done) => later(() => compress(data), done)
exports.uncompress = (data, options, done = options) => later(() => uncompress(data), done)
