/** As `iotchain-device forget` does: `FOLDER PATH`; prints who it is afterwards. */
import { orderForget } from '../../device/forget.ts'
import { inStateFolder } from '../../runtime/state-folder.ts'

const [folder, path] = process.argv.slice(2) as [string, string]
inStateFolder(folder, (state) => orderForget(state, path))
console.log(`${process.geteuid?.()} ${process.getegid?.()}`)
