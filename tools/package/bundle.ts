/**
 * One command as a few JavaScript files: what is loaded lazily stays in chunks of its own. Packages with native parts
 * stay outside and are shipped beside the bundle.
 */
import { isBuiltin } from 'node:module'
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'

/** npm packages that cannot be bundled, because they find native parts beside themselves. */
export const NATIVE_PACKAGES = ['classic-level', 'onoff', 'epoll', 'unix-dgram']

/** esbuild's ESM output has no `require`; the CommonJS packages inside the bundle want one. */
const BANNER =
  "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);"

/**
 * Of LevelDB only the part that finds its native addon stays outside: the JavaScript of abstract-level, loaded as
 * twenty files of CommonJS, would cost a device 5 MB.
 */
const levelInside: Plugin = {
  name: 'level-inside',
  setup(b) {
    b.onResolve({ filter: /^\.\/binding$/ }, ({ importer }) =>
      importer.includes('/classic-level/') ? { path: 'classic-level/binding.js', external: true } : undefined,
    )
  },
}

/**
 * Node's own modules, one binding for each name that is used. An `import` of them would touch every export, and with
 * `fs.promises` or `crypto.webcrypto` load thirty more of Node's files.
 */
const builtinsByName: Plugin = {
  name: 'builtins-by-name',
  setup(b) {
    b.onResolve({ filter: /^node:/ }, ({ path, kind }) =>
      (kind === 'import-statement' || kind === 'dynamic-import') && isBuiltin(path)
        ? { path, namespace: 'builtin', sideEffects: false }
        : undefined,
    )
    b.onLoad({ filter: /./, namespace: 'builtin' }, ({ path }) => {
      const names = Object.keys(process.getBuiltinModule(path) as object).filter((name) => IDENTIFIER.test(name))
      const bindings = names.map((name) => `export const ${name} = /* @__PURE__ */ pick(${JSON.stringify(name)})`)
      return {
        contents: `const builtin = /* @__PURE__ */ process.getBuiltinModule(${JSON.stringify(path)})
const pick = (name) => builtin[name]
export default builtin
${bindings.join('\n')}`,
        loader: 'js',
      }
    })
  },
}

/** Names that can be exported; `constants` and the like are, reserved words are not. */
const IDENTIFIER = /^(?!(?:default|delete|import|export|new|in|if|do)$)[A-Za-z_$][\w$]*$/

export interface BundleOptions {
  /** the checkout */
  readonly root: string
  /** command names, each with its source in bin/<name>.ts */
  readonly commands: readonly string[]
  readonly out: string
}

/** Writes `<out>/<command>.mjs` and its chunks; deterministic for equal sources. */
export async function bundle({ root, commands, out }: BundleOptions): Promise<void> {
  await build({
    entryPoints: Object.fromEntries(commands.map((c) => [c, join(root, 'bin', `${c}.ts`)])),
    outdir: out,
    outExtension: { '.js': '.mjs' },
    chunkNames: 'chunks/[name]-[hash]',
    absWorkingDir: root,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    conditions: ['iotchain-source'],
    define: { IOTCHAIN_BUNDLED: 'true' },
    external: [...NATIVE_PACKAGES.filter((name) => name !== 'classic-level'), '*.node'],
    banner: { js: BANNER },
    plugins: [levelInside, builtinsByName],
    legalComments: 'none',
    minifySyntax: true,
    minifyWhitespace: true,
    logLevel: 'warning',
  })
}
