/** New keys in the client's folder, encrypted under a password that is asked for or read from a file. */
import type { Account } from '../../chain/wallet.ts'
import { ClientHome } from '../../client/home.ts'
import type { CommandContext } from '../terminal/command.ts'
import { readNewPassword } from '../terminal/password.ts'

/** Makes a key and keeps it. @throws `wallet/…` */
export async function createKey(ctx: CommandContext, light: boolean): Promise<Account> {
  const { createAccount } = await import('../../chain/wallet.ts')
  const account = createAccount()
  await keepKey(ctx, account, light)
  return account
}

export async function keepKey(ctx: CommandContext, account: Account, light: boolean): Promise<void> {
  const home = new ClientHome(ctx.home)
  home.assertNoKey(account.address)
  const password = await readNewPassword(ctx.passwordFile, `New password of ${account.address}`)
  ctx.out.progress('encrypting the key')
  home.writeKey(account.address, await account.encrypt(password, light))
}
