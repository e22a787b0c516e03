// A step that opens key vaults, and one that signs with managed files.
def call(config, Closure body) {
  withAzureKeyvault(
    azureKeyVaultSecrets: config.entries,
    keyVaultURLOverride: "https://${config.name}.vault.azure.net/",
    applicationIDOverride: env.VAULT_CLIENT_ID,
    applicationSecretOverride: env.VAULT_CLIENT_SECRET
  ) {
    body.call()
  }
  azureKeyVault(credentialID: 'vault-reader', keyVaultURL: 'https://shop.vault.azure.net', secrets: [
    [secretType: 'Secret', name: 'npm-token', envVariable: 'NPM_TOKEN']
  ]) {
    sh 'npm publish'
  }
  stage('Sign') {
    def pass = config.pass ?: 'signer-pass'
    configFileProvider([configFile(fileId: pass, variable: 'SIGNER_PASSWORD'), configFile(fileId: 'notes', variable: 'NOTES')]) {
      sh './sign'
    }
  }
}
